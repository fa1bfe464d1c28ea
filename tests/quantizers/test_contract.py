"""What every option of the quantizer group promises, whatever its maths."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bnnbench.config import load_quantizer, options
from bnnbench.layers import set_progress
from bnnbench.quantizers.base import Decomposition, Side, overridden

ALL = options("quantizer")
BITS = {"fp32": (32, 32), "bbb": (32, 32), "twn": (2, 32)}  # else (1, 1)
BITS |= {"wage": (2, 8), "zhuang": (2, 2)}
BITS |= dict.fromkeys(("admm", "bayesbinn", "bwn", "mcn"), (1, 32)) | {"tbn": (1, 2)}
BASES = {"ienet": (1, 2), "abcnet": (5, 5)}  # else (1, 1)
BINARY = [name for name in ALL if 1 in BITS.get(name, (1, 1))]
SHAPE = (5, 3, 3, 3)  # 27 weights a filter: not a multiple of any vector length


def _sides(name: str, shape: tuple[int, ...] = SHAPE, **overrides: int) -> list[Side]:
    spec = load_quantizer(name, **overrides)
    return [spec.weight(shape), spec.activation(shape[1])]


def _binary_sides(
    name: str, shape: tuple[int, ...] = SHAPE, **overrides: int
) -> list[tuple[Side, int]]:
    """The 1-bit sides in evaluation, where no method draws samples, and the input of each."""
    sides = enumerate(_sides(name, shape, **overrides))
    return [(side.eval(), i) for i, side in sides if side.bits == 1]


def _inputs(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    return [0.5 * torch.randn(SHAPE, dtype=dtype), torch.randn(2, 3, 7, 7, dtype=dtype)]


def _perturbed(side: Side) -> Side:
    """The side as training leaves it: parameters moved, schedule on its way."""
    for parameter in side.parameters():
        parameter.data.add_(0.3 * torch.rand_like(parameter) + 0.1)
    set_progress(side, 9, 10)
    return side


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BINARY)
def test_decomposition_is_the_forward_value(name, dtype):
    for side, which in _binary_sides(name):
        x = _inputs(dtype)[which]
        _perturbed(side.to(dtype))
        parts = side.decompose(x)
        assert isinstance(parts, Decomposition)
        assert set(parts.code.unique().tolist()) == {-1.0, 1.0}
        assert not any(part.requires_grad for part in parts)
        torch.testing.assert_close(parts.scale * parts.code + parts.offset, side(x).detach())


@pytest.mark.parametrize("name", BINARY)
def test_value_is_one_of_two_exactly(name):
    """Where a scale differs within a filter (MCN), of two a scale."""
    for side, which in _binary_sides(name):
        x = _inputs(torch.float32)[which]
        scale = _perturbed(side).decompose(x).scale
        parts = zip(side(x), scale.expand_as(x), strict=True) if which == 0 else [(side(x), scale)]
        for values, scales in parts:
            assert 2 <= values.unique().numel() <= 2 * scales.unique().numel()


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", BINARY)
def test_code_at_the_threshold_is_plus_one(name, zero):
    threshold = 0.5 if name == "dorefa" else zero
    # mean 0 over every axis, and within half a period of BiPer's wave
    centred = torch.tensor([0.05, zero, -0.05]).view(1, 3, 1, 1)
    if name == "siman":  # the threshold of its weights is a magnitude, here 0.05
        centred = centred[:, [0, 2, 1]]
    inputs = [centred, torch.tensor([1.0, threshold, -1.0]).view(1, 3, 1, 1)]
    # of several bases the first one's threshold is not 0
    one = {"weight_bases": 1, "activation_bases": 1} if name == "abcnet" else {}
    for side, which in _binary_sides(name, (1, 3, 1, 1), **one):
        if name == "rbnn" and which == 0:
            side.theta.data.zero_()  # not rotated
        x = inputs[which]
        assert side.decompose(x).code.flatten().tolist() == [1, 1, -1]
        assert side(x).flatten()[0] == side(x).flatten()[1]


@pytest.mark.parametrize("name", ALL)
def test_forward_changes_nothing(name):
    """Neither mode may touch the latent weight, the input or the method's own state.

    Running statistics move in training, as a batch norm's do.
    """
    conv = load_quantizer(name).conv2d(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 6, 6)
    before, x_before = copy.deepcopy(conv.state_dict()), x.clone()
    outputs = []
    for mode in (True, False, True):
        torch.manual_seed(0)  # some methods draw their weights in training
        outputs.append(conv.train(mode)(x).detach())
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(x, x_before)
    for key, value in conv.state_dict().items():
        assert torch.equal(value, before[key]) or ".running_" in key, key


def _output_and_gradients(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    conv.zero_grad()
    torch.manual_seed(0)
    out = conv(x)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in conv.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", ALL)
def test_state_dict_carries_everything_over(name):
    """Parameters and schedule: a resumed layer has the same output and the same gradients."""
    torch.manual_seed(0)
    spec, x = load_quantizer(name), torch.randn(2, 3, 6, 6)
    trained, fresh = (spec.conv2d(3, 5, 3) for _ in range(2))
    for side in (trained.weight_quantizer, trained.activation_quantizer):
        _perturbed(side)
    fresh.load_state_dict(trained.state_dict())
    expected = _output_and_gradients(trained, x)
    for a, b in zip(_output_and_gradients(fresh, x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_bits_and_bases_are_stated(name):
    expected = zip(BITS.get(name, (1, 1)), BASES.get(name, (1, 1)), strict=True)
    assert [(side.bits, side.bases) for side in _sides(name)] == list(expected)


@pytest.mark.parametrize("name", ALL)
def test_symmetric_says_whether_a_relu_may_stand_before_the_layer(name):
    activation = load_quantizer(name).activation(3).eval()  # FDA-BNN trains with noise
    positive = torch.rand(2, 3, 4, 4) + 1e-3
    is_constant = activation(positive).unique().numel() == 1
    words = "constant" if is_constant else "not constant"
    assert activation.symmetric == is_constant, f"{name} is {words} on positive inputs"


def test_what_a_side_says_without_a_word_of_its_own():
    side, weight = Side(), torch.randn(SHAPE)
    kept = weight.clone()
    assert side.modulated(weight) is weight
    for hook in ("start", "epoch_start", "after_backward", "after_step"):
        getattr(side, hook)(weight)
        assert not overridden(side, hook)
    assert torch.equal(weight, kept)
    assert (side.gradient_bits, side.error_bits, side.training_only) == (32, 32, ())
    assert side.optimizer is None


OWN = {
    "start": {"wage"},
    "epoch_start": {"admm", "rbnn"},
    "after_backward": {"abbnn", "admm", "lab", "ovsw"},
    "after_step": {"bnn", "lab", "ovsw", "rbonn", "rebnn", "sibnn", "siman", "wage"},
    "modulated": {"bonn", "pcnn"},
}
OWN["after_step"] |= {"r2b", "rad", "xnorpp"}  # whose weights are BNN's


@pytest.mark.parametrize("method", OWN)
def test_methods_that_do_more_around_a_step(method):
    """The headers of their files say so."""
    found = {name for name in ALL if overridden(load_quantizer(name).weight(SHAPE), method)}
    assert found == OWN[method]


@pytest.mark.parametrize("name", ALL)
def test_asking_for_bits_draws_no_random_number(name):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert load_quantizer(name).bits["w"] == BITS.get(name, (1, 1))[0]
    assert torch.equal(torch.get_rng_state(), before)
