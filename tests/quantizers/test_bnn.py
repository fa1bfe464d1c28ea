"""BNN: signs with the identity and the clipped straight-through estimator, latent clip, draws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnbench.config import build_backbone, load_quantizer
from bnnbench.layers import BinaryConv2d, BinaryLinear
from bnnbench.quantizers.base import Identity


def test_weight_is_the_sign_with_the_gradient_of_the_identity(weight, gradient, upstream):
    side, g = load_quantizer("bnn").weight(tuple(weight.shape)), upstream(weight)
    value, grad = gradient(side, weight, g)
    assert torch.equal(value, torch.where(weight >= 0, 1.0, -1.0).double())
    assert torch.equal(grad, g)  # beyond [-1, 1] as well: the latent weight is clipped instead


def test_activation_gradient_is_clipped(x, gradient, upstream):
    side, g = load_quantizer("bnn").activation(4), upstream(x)
    value, grad = gradient(side, x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    torch.testing.assert_close(grad, torch.where(x.abs() < 1, g, 0.0))


def test_after_step_clips_the_latent_weight_in_place(weight):
    side = load_quantizer("bnn").weight(tuple(weight.shape))
    latent = torch.nn.Parameter(weight.clone())
    side.after_step(latent)
    assert torch.equal(latent.detach(), weight.clamp(-1, 1))
    assert (weight.abs() > 1).any()
    assert (latent.abs() < 1).any()


def test_scale_is_one_and_offset_zero(weight):
    parts = load_quantizer("bnn").weight(tuple(weight.shape)).decompose(weight)
    assert (parts.scale, parts.offset) == (1, 0)


def _drawn(weight):
    return load_quantizer("bnn", stochastic=True).weight(tuple(weight.shape))


def test_drawn_signs_have_the_frequency_of_a_hard_sigmoid():
    """Eq. 3, exact where it is 0 or 1; within 4 standard deviations elsewhere."""
    values, draws = torch.tensor([-1.5, -1.0, -0.6, -0.1, 0.0, 0.3, 0.9, 1.0, 1.5]), 40_000
    torch.manual_seed(0)
    weight = values.repeat(draws, 1)
    drawn = _drawn(weight)(weight)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    p = ((values + 1) / 2).clamp(0, 1)
    difference = (drawn == 1).float().mean(dim=0) - p
    assert (difference.abs() <= 4 * (p * (1 - p) / draws).sqrt()).all(), difference


def test_drawn_signs_have_the_gradient_of_the_identity(weight, gradient, upstream):
    g = upstream(weight)
    value, grad = gradient(_drawn(weight), weight, g)
    assert not torch.equal(value, torch.where(weight >= 0, 1.0, -1.0).double())
    assert torch.equal(grad, g)


def test_evaluation_draws_nothing(weight):
    side = _drawn(weight).eval()
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    assert torch.equal(side(weight), signs)
    assert torch.equal(side.decompose(weight).code, signs)


def test_draws_follow_the_seed(weight):
    side, drawn = _drawn(weight), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(side(weight))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_without_the_option_no_random_number_is_used(weight):
    side, state = load_quantizer("bnn").weight(tuple(weight.shape)), torch.get_rng_state()
    side(weight)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("backbone", ["resnet20", "vgg_small"])
def test_both_ends_can_be_binary(backbone, stochastic):
    """As in the paper: every weight is binary, and every input but the image; one step trains."""
    torch.manual_seed(0)
    spec = load_quantizer("bnn", stochastic=stochastic)
    options = {"first": "binary", "last": "binary", "image_size": 16}
    net = build_backbone(backbone, spec, num_classes=4, **options)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(isinstance(layer, BinaryConv2d | BinaryLinear) for layer in layers)
    real = [isinstance(layer.activation_quantizer, Identity) for layer in layers]
    assert sum(real) == 1
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = [layer.weight.detach().clone() for layer in layers]
    loss = F.cross_entropy(net(torch.randn(4, 3, 16, 16)), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for layer, old in zip(layers, before, strict=True):
        assert not torch.equal(layer.weight, old)
        assert layer.weight_quantizer.eval()(layer.weight).unique().tolist() == [-1, 1]
