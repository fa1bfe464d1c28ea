"""LAB2: the layer's scale by the gradients seen, straight-through weights, clipped signs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnbench.config import load_quantizer


def _alpha(w: np.ndarray, v: np.ndarray) -> float:
    d = np.sqrt(v) + 1e-8
    return float(np.abs(d * w).sum() / d.sum())


def _signs(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0).double()


def _side(weight, *gradients):
    """A side that saw these gradients."""
    side = load_quantizer("lab").weight(tuple(weight.shape)).double()
    latent = nn.Parameter(weight.clone())
    for latent.grad in gradients:
        side.after_backward(latent)
    return side


def test_before_the_first_gradient_the_scale_is_the_mean_magnitude(weight, gradient, upstream):
    g = upstream(weight)
    value, grad = gradient(_side(weight), weight, g)
    torch.testing.assert_close(value, weight.abs().mean() * _signs(weight))
    assert torch.equal(grad, g)


@pytest.mark.parametrize("size", [1.0, 1e-6])  # the second beside the 1e-8
def test_weight(size, weight, gradient, upstream):
    g = upstream(weight)
    gradients = [size * g, size * (g**3 - 1), torch.zeros_like(g)]
    v = np.zeros(weight.shape)
    for seen in gradients:
        v = 0.999 * v + 0.001 * seen.numpy() ** 2
    value, grad = gradient(_side(weight, *gradients), weight, g)
    alpha = _alpha(weight.numpy(), v)
    assert abs(alpha / float(weight.abs().mean()) - 1) > 0.01
    torch.testing.assert_close(value, alpha * _signs(weight))
    assert torch.equal(grad, g)  # alpha does not multiply it


def test_the_scale_is_the_best_by_the_curvature(weight, upstream):
    """Of all alpha, ``sum d (w - alpha sign(w))^2`` is least at the side's."""
    side = _side(weight, upstream(weight))
    d, alpha = side.v.sqrt() + 1e-8, float(side.decompose(weight).scale)
    loss = [
        float((d * (weight - a * alpha * _signs(weight)) ** 2).sum()) for a in (0.999, 1, 1.001)
    ]
    assert loss[1] < min(loss[0], loss[2])


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_moment_is_adam_s(amsgrad, x):
    torch.manual_seed(0)
    conv = load_quantizer("lab").conv2d(4, 6, 3).double()
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.1, amsgrad=amsgrad)
    for _ in range(5):
        optimizer.zero_grad()
        conv(x).square().mean().backward()
        conv.weight_quantizer.after_backward(conv.weight)
        optimizer.step()
        conv.weight_quantizer.after_step(conv.weight)
    torch.testing.assert_close(
        conv.weight_quantizer.v, optimizer.state[conv.weight]["exp_avg_sq"], rtol=1e-12, atol=0
    )
    assert float(conv.weight_quantizer.v.min()) > 0


def test_a_frozen_weight_keeps_its_moment(weight, upstream):
    side = _side(weight, upstream(weight))
    before = side.v.clone()
    side.after_backward(weight)
    assert torch.equal(side.v, before)


def test_a_step_clips_the_latent_weight(weight):
    latent = nn.Parameter(weight.clone())
    load_quantizer("lab").weight(tuple(weight.shape)).after_step(latent)
    assert np.array_equal(latent.detach(), weight.numpy().clip(-1, 1))
    assert (weight.abs() > 1).any()


def test_activation(x, gradient, upstream):
    g = upstream(x)
    value, grad = gradient(load_quantizer("lab").activation(4), x, g)
    assert torch.equal(value, _signs(x))
    assert torch.equal(grad, g * (x.abs() < 1))


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("lab").conv2d(4, 6, 3, bias=False, **options).double()
    conv.weight_quantizer.v.copy_(torch.rand_like(conv.weight))
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w = conv.weight.detach()
    alpha = _alpha(w.numpy(), conv.weight_quantizer.v.numpy())
    values = [_signs(x).requires_grad_(), (alpha * _signs(w)).requires_grad_()]
    expected = F.conv2d(*values, None, **options)
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(leaf.grad, values[0].grad * (x.abs() < 1))
    torch.testing.assert_close(conv.weight.grad, values[1].grad)


def test_moment_survives_a_state_dict(weight, upstream):
    trained = _side(weight, upstream(weight))
    fresh = load_quantizer("lab").weight(tuple(weight.shape)).double()
    assert not torch.allclose(fresh(weight), trained(weight))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(weight), trained(weight))
