"""OvSW: the scale of standardised filters, both changes of the gradient, the flips' average."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer


def _closed_form(w, g, delta=0.04, decay=9e-4, silent=None):
    """Value and gradient, filter by filter; at the start every weight is silent."""
    silent = np.ones_like(w) if silent is None else silent
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o in range(len(w)):
        d = w[o] - w[o].mean()
        std = np.sqrt((d**2).sum() / (d.size - 1) + 1e-5)
        scale = np.abs(d / std).mean()
        values[o] = scale * np.where(w[o] >= 0, 1, -1)
        grad = scale * g[o]
        grad_norm = max(np.linalg.norm(grad), 1e-6)
        norm = max(np.linalg.norm(w[o]), 1e-3)
        if grad_norm / norm < delta:
            grad = delta * norm / grad_norm * grad
        gradients[o] = grad + decay * silent[o] * w[o]
    return values, gradients


def _activation(x, g):
    """Gradient in training: the std of a sample is a constant."""
    std = np.sqrt(x.var(axis=(1, 2, 3), ddof=1, keepdims=True) + 1e-5)
    return g * np.maximum(0, 2 - 2 * np.abs(x / std)) / std


def _side(weight, **options):
    return load_quantizer("ovsw", **options).weight(tuple(weight.shape)).double()


@pytest.fixture
def gradient():
    """Value and complete gradient of a side at ``x``."""

    def run(side, x, g):
        leaf = x.clone().requires_grad_()
        value = side(leaf)
        value.backward(g)
        side.after_backward(leaf)
        return value.detach(), leaf.grad

    return run


def test_weight(weight, gradient, upstream):
    g = upstream(weight) * torch.logspace(-3, 0, 6).view(6, 1, 1, 1)
    value, grad = gradient(_side(weight), weight, g)
    expected = _closed_form(weight.numpy(), g.numpy())
    assert_allclose(value, expected[0], rtol=1e-12)
    assert_allclose(grad, expected[1], rtol=1e-10)
    ratio = np.linalg.norm(g.numpy().reshape(6, -1), axis=1)
    ratio = ratio / np.linalg.norm(weight.numpy().reshape(6, -1), axis=1)
    assert ratio.min() < 0.01 < 0.1 < ratio.max()  # scaled filters and others


def test_the_code_is_the_sign_of_the_weight_itself(weight):
    weight = weight.abs() + 0.1  # centring would make half of the signs -1
    assert (_side(weight)(weight) > 0).all()


@pytest.mark.parametrize("tiny", ["weight", "gradient"])
def test_norms_have_a_floor(tiny, weight, gradient, upstream):
    g = upstream(weight)
    weight, g = (1e-6 * weight, 1e-9 * g) if tiny == "weight" else (weight, 1e-9 * g)
    _, grad = gradient(_side(weight), weight, g)
    assert_allclose(grad, _closed_form(weight.numpy(), g.numpy())[1], rtol=1e-10)


def test_options_reach_the_gradient(weight, gradient, upstream):
    side, g = _side(weight, delta=0.5, decay=0.1), 0.01 * upstream(weight)
    _, grad = gradient(side, weight, g)
    assert_allclose(grad, _closed_form(weight.numpy(), g.numpy(), 0.5, 0.1)[1], rtol=1e-10)


def test_a_flip_wakes_a_weight_for_2302_steps(weight, gradient, upstream):
    """0.001 * 0.999^n falls below 1e-4 at n = 2302."""
    side, g = _side(weight), upstream(weight)
    flipped = torch.zeros_like(weight)
    flipped.view(-1)[::5] = 1
    gradient(side, weight * (1 - 2 * flipped), g)
    side.after_step(weight)
    torch.testing.assert_close(side.flips, 0.001 * flipped)  # of the very first step
    for steps, asleep in ((0, 0), (2301, 0), (1, 1)):
        for _ in range(steps):
            side.after_backward(weight)
            side.after_step(weight)
        _, grad = gradient(side, weight, g)
        silent = np.maximum(1 - flipped.numpy(), asleep)
        expected = _closed_form(weight.numpy(), g.numpy(), silent=silent)[1]
        assert_allclose(grad, expected, rtol=1e-10, atol=1e-14)


def test_flips_are_those_of_the_authors_loop(weight, upstream):
    """Written out: the flip of a step is averaged before the next one, from the first on."""
    side, leaf = _side(weight), weight.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=1.0)
    tracker, before = np.zeros(weight.shape), leaf.detach().numpy().copy()
    for step in range(4):
        now = leaf.detach().numpy().copy()
        tracker = 0.999 * tracker + 0.001 * (np.sign(now) != np.sign(before))
        before = now
        leaf.grad = upstream(weight).roll(step, 0)
        side.after_backward(leaf)
        assert_allclose(side.flips, tracker, atol=1e-12)
        silent = tracker < 1e-4
        assert silent.all() == (step == 0)
        optimizer.step()
        side.after_step(leaf)


def test_activation_keeps_the_std_out_of_the_gradient(x, gradient, upstream):
    side, g = load_quantizer("ovsw").activation(4), upstream(x)
    signs = torch.where(x >= 0, 1.0, -1.0).double()
    value, grad = gradient(side.train(), x, g)
    assert torch.equal(value, signs)
    assert_allclose(grad, _activation(x.numpy(), g.numpy()), rtol=1e-10, atol=1e-14)
    value, grad = gradient(side.eval(), x, g)
    assert torch.equal(value, signs)
    torch.testing.assert_close(grad, g * (2 - 2 * x.abs()).clamp(min=0))


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("ovsw").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    conv.weight_quantizer.after_backward(conv.weight)
    w = conv.weight.detach().numpy()
    values = [torch.where(x >= 0, 1.0, -1.0).double(), torch.tensor(_closed_form(w, w)[0])]
    values = [value.requires_grad_() for value in values]
    expected = F.conv2d(*values, None, **options)
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    to_x = _activation(x.numpy(), values[0].grad.numpy())
    assert_allclose(leaf.grad, to_x, rtol=1e-9, atol=1e-13)
    assert_allclose(conv.weight.grad, _closed_form(w, values[1].grad.numpy())[1], rtol=1e-9)


def test_state_survives_a_state_dict(weight):
    net, fresh = (nn.ModuleList([_side(weight)]) for _ in range(2))
    net[0].after_backward(-weight)
    net[0].after_step(weight)
    fresh.load_state_dict(net.state_dict())
    for module in (net, fresh):
        module[0].after_backward(weight)
        module[0].after_step(-weight)
    assert torch.equal(fresh[0].flips, net[0].flips)
    assert float(fresh[0].flips.min()) == pytest.approx(0.001 * 0.999 + 0.001)


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("ovsw").conv2d(4, 6, 3).double().eval()
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)


def test_a_constant_filter_stays_finite(gradient):
    weight = torch.full((1, 2, 3, 3), 0.5)
    value, grad = gradient(load_quantizer("ovsw").weight((1, 2, 3, 3)), weight, weight)
    assert value.isfinite().all()
    assert grad.isfinite().all()
