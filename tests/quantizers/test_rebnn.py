"""ReBNN: learned scales, the reconstruction loss in the backward, its balance from flips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.quantizers.reactnet import RSign

AXES = (1, 2, 3)


def _side(weight, before=None):
    """A side that saw a step from ``before`` to ``weight``."""
    torch.manual_seed(0)
    side = load_quantizer("rebnn").weight(tuple(weight.shape)).double()
    for latent in (before, weight):
        if latent is not None:
            side.after_step(latent)
    return side


def _closed_form(w, g, alpha, flips):
    """Value and gradients to w and |alpha|, alpha of shape (O, 1, 1, 1)."""
    s = np.where(w >= 0, 1, -1)
    value = 0.02 * alpha * s
    gamma = np.clip(flips * np.abs(g).max(axis=AXES, keepdims=True), 1e-5, 2e-4)
    to_w = alpha * g + gamma * (w - value)
    to_alpha = (g * w - gamma * (w - value) * 0.02 * s).sum(axis=AXES, keepdims=True)
    return value, to_w, to_alpha


def _flipped(weight, shares):
    """Weights of which these shares of each filter have the other sign."""
    before = weight.clone()
    for o, share in enumerate(shares):
        before[o].view(-1)[: round(share * 36)] *= -1
    return before


@pytest.mark.parametrize(
    "size", [1.0, 1e-3, 1e-7]
)  # gamma at its upper bound, between, at its lower
def test_weight(size, weight, gradient, upstream):
    shares = np.array([0, 1 / 36, 2 / 36, 0.25, 0.5, 1])
    side, g = _side(weight, _flipped(weight, shares)), size * upstream(weight)
    alpha = side.alpha.detach().numpy()
    assert (alpha < 0).any()
    value, grad = gradient(side, weight, g)
    flips = shares.reshape(6, 1, 1, 1)
    expected = _closed_form(weight.numpy(), g.numpy(), np.abs(alpha), flips)
    assert_allclose(value, expected[0], rtol=1e-13)
    assert_allclose(grad, expected[1], rtol=1e-9)
    assert_allclose(side.alpha.grad, np.sign(alpha) * expected[2], rtol=1e-9)


def test_the_term_is_the_gradient_of_a_reconstruction_loss(weight, gradient):
    """Without an upstream gradient the balance is its lower bound, 1e-5."""
    side = _side(weight)
    _, grad = gradient(side, weight, torch.zeros_like(weight))
    w, alpha = weight.clone().requires_grad_(), side.alpha.detach().clone().requires_grad_()
    signs = torch.where(weight >= 0, 1.0, -1.0)
    (1e-5 / 2 * (w - 0.02 * alpha.abs() * signs).square().sum()).backward()
    torch.testing.assert_close(grad, w.grad)
    torch.testing.assert_close(side.alpha.grad, alpha.grad)


def test_large_weights_keep_their_gradient(weight, gradient):
    side = _side(weight)
    _, grad = gradient(side, 5 * weight, torch.ones_like(weight))
    assert (grad.abs() > 0.9 * side.alpha.detach().abs()).all()


def test_flips_are_those_of_the_last_step_per_filter(weight):
    side = load_quantizer("rebnn").weight(tuple(weight.shape)).double()
    for shares in ([0] * 6, [0, 0.25, 0.5, 0.75, 1, 1 / 36], [0] * 6):
        side.after_step(_flipped(weight, shares))
    assert side.flips.flatten().tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1 / 36])
    side.after_step(weight)
    assert not side.flips.any()


def test_the_first_step_flips_nothing(weight):
    side = load_quantizer("rebnn").weight(tuple(weight.shape)).double()
    side.after_step(weight)
    assert not side.flips.any()


def test_from_zero_to_a_positive_weight_is_no_flip():
    side = load_quantizer("rebnn").weight((1, 2))
    for weight in ([0.0, -0.0], [1.0, -1.0]):
        side.after_step(torch.tensor([weight]))
    assert float(side.flips) == 0.5


def test_activation_is_reactnets():
    assert type(load_quantizer("rebnn").activation(4)) is RSign


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("rebnn").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w, alpha = conv.weight.detach().numpy(), conv.weight_quantizer.alpha.detach().numpy()
    values = [torch.where(x >= 0, 1.0, -1.0).double()]
    values += [torch.tensor(_closed_form(w, w, np.abs(alpha), 0)[0])]
    values = [value.requires_grad_() for value in values]
    expected = F.conv2d(*values, None, **options)
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(leaf.grad, values[0].grad * (2 - 2 * x.abs()).clamp(min=0))
    to_w = _closed_form(w, values[1].grad.numpy(), np.abs(alpha), 0)[1]
    assert_allclose(conv.weight.grad, to_w, rtol=1e-9)


def test_state_survives_a_state_dict(weight):
    net = nn.ModuleList([_side(weight, _flipped(weight, [0.25] * 6))])
    fresh = nn.ModuleList([load_quantizer("rebnn").weight(tuple(weight.shape)).double()])
    fresh.load_state_dict(net.state_dict())
    assert fresh[0].flips.flatten().tolist() == [0.25] * 6
    fresh[0].after_step(weight)
    assert not fresh[0].flips.any()


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("rebnn").conv2d(4, 6, 3).double().eval()
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)
