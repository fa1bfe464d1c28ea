"""Shortcuts, downsampling and the residual block against explicit formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.backbones.blocks import BasicBlock
from bnnbench.backbones.structure import DOWNSAMPLES, NormFreeStructure, PadShortcut, Structure
from bnnbench.config import load_quantizer, options
from bnnbench.quantizers import NONLINEARITIES

SIZES = [1, 2, 5, 7, 8, 14, 28]


def _map(channels: int, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, size, size, dtype=torch.float64, generator=generator)


def _structure(quantizer: str = "bnn", **switches) -> Structure:
    defaults = {"shortcut": "conv", "downsample": "pad", "nonlinearity": "hardtanh"}
    return Structure(load_quantizer(quantizer), **{**defaults, **switches})


@pytest.mark.parametrize("size", SIZES)
def test_option_a_is_a_slice_with_zero_channels_on_both_sides(size):
    x = _map(4, size)
    out = PadShortcut(4, 8, stride=2, pool=False)(x)
    expected = torch.zeros(2, 8, *x[:, :, ::2, ::2].shape[2:], dtype=torch.float64)
    expected[:, 2:6] = x[:, :, ::2, ::2]
    assert torch.equal(out, expected)


def test_option_a_puts_the_odd_channel_behind():
    out = PadShortcut(2, 5, stride=1, pool=False)(torch.ones(1, 2, 1, 1))
    assert out.flatten().tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("size", SIZES)
def test_pooled_option_a_averages_only_real_pixels(size):
    x = _map(4, size)
    out = PadShortcut(4, 8, stride=2, pool=True)(x)
    half = (size + 1) // 2
    assert out.shape == (2, 8, half, half)
    for i in range(half):
        for j in range(half):
            window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            torch.testing.assert_close(out[:, 2:6, i, j], window.mean(dim=(2, 3)))
    assert not out[:, [0, 1, 6, 7]].any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", DOWNSAMPLES)
def test_every_downsample_has_the_shape_of_the_main_path(name, stride, size):
    x = _map(4, size)
    main = nn.Conv2d(4, 8, 3, stride, 1).double()
    assert DOWNSAMPLES[name](4, 8, stride).double()(x).shape == main(x).shape


@pytest.mark.parametrize("name", ["conv", "avgpool_conv"])
def test_conv_downsample_is_a_full_precision_1x1_and_a_norm(name):
    shortcut, x = DOWNSAMPLES[name](4, 8, 2).double(), _map(4)
    weight = next(p for p in shortcut.parameters() if p.dim() == 4)
    source = x[:, :, ::2, ::2] if name == "conv" else F.avg_pool2d(x, 2)
    expected = F.batch_norm(F.conv2d(source, weight), None, None, training=True)
    torch.testing.assert_close(shortcut(x), expected)


def test_the_two_conv_downsamples_load_each_others_weights():
    strided, pooled = (DOWNSAMPLES[name](4, 8, 2) for name in ("conv", "avgpool_conv"))
    pooled.load_state_dict(strided.state_dict())


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2)])
@pytest.mark.parametrize("shortcut", ["conv", "block"])
def test_block_is_quantize_conv_norm_add_act(shortcut, channels, stride):
    structure = _structure(shortcut=shortcut)
    block, x = BasicBlock(4, channels, stride, structure).double(), _map(4)

    def conv_norm(value: Tensor, conv: nn.Conv2d, step: int) -> Tensor:
        code, weight = torch.where(value >= 0, 1.0, -1.0), torch.where(conv.weight >= 0, 1.0, -1.0)
        out = F.conv2d(code, weight, stride=step, padding=1).double()
        return F.batch_norm(out, None, None, training=True)

    skip = x if stride == 1 else PadShortcut(4, 8, 2, pool=False)(x)
    middle = conv_norm(x, block.conv1, stride)
    middle = (middle + skip if shortcut == "conv" else middle).clamp(-1, 1)
    skip = middle if shortcut == "conv" else skip
    expected = (conv_norm(middle, block.conv2, 1) + skip).clamp(-1, 1)
    torch.testing.assert_close(block(x), expected)


def test_a_block_leaves_its_input_alone():
    for nonlinearity in NONLINEARITIES:
        quantizer = "dorefa" if nonlinearity == "relu" else "bnn"
        structure = _structure(quantizer, nonlinearity=nonlinearity, shortcut="block")
        x = _map(4)
        BasicBlock(4, 4, 1, structure).double()(x)
        assert torch.equal(x, _map(4)), nonlinearity


@pytest.mark.parametrize("quantizer", ["bnn", "xnor", "birealnet", "irnet", "reactnet", "adabin"])
def test_relu_before_a_sign_is_refused(quantizer):
    with pytest.raises(ValueError, match=rf"relu before quantizer={quantizer}.*choose .*hardtanh"):
        _structure(quantizer, nonlinearity="relu")


def test_relu_before_zero_one_activations_is_allowed():
    assert _structure("dorefa", nonlinearity="relu").nonlinearity == "relu"


def test_identity_with_real_activations_is_refused():
    with pytest.raises(ValueError, match=r"nonlinearity=identity with quantizer=fp32.*choose relu"):
        _structure("fp32", nonlinearity="identity")
    weights_only = load_quantizer("dorefa", activation_bits=32)
    with pytest.raises(ValueError, match="is linear"):
        Structure(weights_only, nonlinearity="identity")


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("shortcut", "block"),
        ("downsample", "avgpool_pad"),
        ("nonlinearity", "maxout"),
        ("first", "binary"),
        ("last", "binary"),
    ],
)
def test_a_mistyped_switch_is_an_error_with_the_choices(key, valid):
    with pytest.raises(ValueError, match=rf"backbone\.{key}='typo': choose one of .*'{valid}'"):
        _structure(**{key: "typo"})


def test_first_layer_is_binary_in_the_weights_only():
    x = _map(3)
    stem = _structure(first="binary").stem3x3(3, 6).double()
    weight = torch.where(stem.weight >= 0, 1.0, -1.0).double()
    torch.testing.assert_close(stem(x), F.conv2d(x, weight, padding=1))
    assert type(_structure(first="fp32").stem3x3(3, 6)) is nn.Conv2d


def test_last_layer_is_binary_on_both_sides():
    vector = _map(1).flatten(1)
    last = _structure(last="binary").classifier(64, 10).double()
    code, weight = torch.where(vector >= 0, 1.0, -1.0), torch.where(last.weight >= 0, 1.0, -1.0)
    torch.testing.assert_close(last(vector), F.linear(code.double(), weight.double(), last.bias))
    assert type(_structure(last="fp32").classifier(64, 10)) is nn.Linear


def test_as_dict_is_plain_and_complete():
    assert _structure(padding_value=1, head_norm=True).as_dict() == {
        "nonlinearity": "hardtanh",
        "shortcut": "conv",
        "downsample": "pad",
        "head_norm": True,
        "padding_value": 1,
        "first": "fp32",
        "last": "fp32",
    }


@pytest.mark.parametrize("name", options("quantizer"))
def test_a_structure_draws_what_one_activation_side_draws(name):
    """Initial weights stand behind these draws: with others every seed would mean new weights."""
    spec, shape = load_quantizer(name), ("hardtanh", "conv", "pad")
    states = []
    for build in (lambda: NormFreeStructure(spec, *shape), lambda: spec.activation(1)):
        torch.manual_seed(0)
        build()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    torch.manual_seed(0)
    assert torch.equal(states[0], torch.get_rng_state()) == (name not in ("fda", "ienet"))
