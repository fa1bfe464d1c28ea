"""ReCU: standardised weights, the quantile's gate and its schedule, activations, output scale."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress
from bnnbench.quantizers.recu import ReCUActivation


def _tau(progress: float) -> float:
    a = (0.99 - 0.85) / (math.e - 1)
    return a * math.exp(progress) + 0.85 - a


def _weight(w: np.ndarray, g: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, gradient and gate: filter by filter, the gate by the mean of the whole layer."""
    n = w[0].size
    centred = w - w.mean(axis=(1, 2, 3), keepdims=True)
    std = np.sqrt((centred**2).sum(axis=(1, 2, 3), keepdims=True) / (n - 1) + 1e-5)
    v = centred / (std / 2 / np.sqrt(2))
    gate = np.abs(v) < -np.abs(v).mean() * np.log(2 - 2 * tau)
    to_v = g * gate
    inner = (to_v * centred).sum(axis=(1, 2, 3), keepdims=True)
    to_centred = (to_v - centred * inner / ((n - 1) * std**2)) * 2 * np.sqrt(2) / std
    return (
        np.where(v >= 0, 1, -1),
        to_centred - to_centred.mean(axis=(1, 2, 3), keepdims=True),
        gate,
    )


def _activation(x: np.ndarray, g: np.ndarray, detached: bool = False) -> np.ndarray:
    """Gradient in training, sample by sample."""
    gradients = np.empty_like(x)
    for i, sample in enumerate(x):
        n, d = sample.size, sample - sample.mean()
        std = np.sqrt((d**2).sum() / (n - 1) + 1e-5)
        to_scaled = g[i] * np.maximum(0, 2 - 2 * np.abs(sample / std))
        gradients[i] = to_scaled / std
        if not detached:
            gradients[i] -= (to_scaled * sample).sum() * d / ((n - 1) * std**3)
    return gradients


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_weight(progress, weight, gradient, upstream):
    side, g = load_quantizer("recu").weight(tuple(weight.shape)).double(), upstream(weight)
    weight = weight**3  # with tails
    set_progress(side, progress, 1)
    value, grad = gradient(side, weight, g)
    expected = _weight(weight.numpy(), g.numpy(), _tau(progress))
    assert 0 < (~expected[2]).mean() < 0.5  # some weights are beyond the quantile
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-6, atol=1e-9)  # tau began in float32


def test_the_gate_is_the_layer_s(weight, gradient, upstream):
    """A filter of two magnitudes is cut by what the other filters have, not by its own mean."""
    spiky = torch.zeros_like(weight)
    spiky[:, :, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    mixed, g = torch.cat([weight[:1], spiky[1:]]), upstream(weight)
    side = load_quantizer("recu").weight(tuple(weight.shape)).double()
    _, grad = gradient(side, mixed, g)
    expected = _weight(mixed.numpy(), g.numpy(), 0.85)
    own = _weight(mixed[:1].numpy(), g[:1].numpy(), 0.85)
    assert (expected[2][:1] != own[2]).any()
    assert_allclose(grad, expected[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("detached", [False, True])
def test_activation_is_divided_by_its_sample_s_std_in_training(detached, x, gradient, upstream):
    side = ReCUActivation(4, detached).double()
    g, signs = upstream(x), torch.where(x >= 0, 1.0, -1.0).double()
    value, grad = gradient(side.train(), x, g)
    assert torch.equal(value, signs)
    assert_allclose(grad, _activation(x.numpy(), g.numpy(), detached), rtol=1e-10, atol=1e-13)
    value, grad = gradient(side.eval(), x, g)
    assert torch.equal(value, signs)
    torch.testing.assert_close(grad, g * (2 - 2 * x.abs()).clamp(min=0))


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("recu").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w = conv.weight.detach()
    scale = conv.output.scale.detach().view(-1, 1, 1)
    signs = [torch.where(x >= 0, 1.0, -1.0).double()]
    signs += [torch.tensor(_weight(w.numpy(), w.numpy(), 0.85)[0]).double()]
    signs = [part.requires_grad_() for part in signs]
    plain = F.conv2d(*signs, None, **options)
    (scale * plain).backward(g)
    torch.testing.assert_close(out, scale * plain)
    assert_allclose(leaf.grad, _activation(x.numpy(), signs[0].grad.numpy()), rtol=1e-9, atol=1e-12)
    to_weight = _weight(w.numpy(), signs[1].grad.numpy(), 0.85)[1]
    assert_allclose(conv.weight.grad, to_weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(conv.output.scale.grad, (g * plain.detach()).sum(dim=(0, 2, 3)))


def test_output_scale_starts_between_0_and_1():
    scale = load_quantizer("recu").conv2d(4, 200, 3).output.scale.detach()
    assert scale.shape == (200,)
    assert 0 <= float(scale.min()) < 0.1 < 0.9 < float(scale.max()) < 1


def test_schedule_survives_a_state_dict():
    spec = load_quantizer("recu")
    net, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(net, 3, 4)
    fresh.load_state_dict(net.state_dict())
    assert float(fresh[0].weight_quantizer.schedule.tau) == pytest.approx(_tau(0.75))
    set_progress(fresh, 1, 4)
    assert float(fresh[0].weight_quantizer.schedule.tau) == pytest.approx(_tau(0.25))


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("recu").conv2d(4, 6, 3).double().eval()
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)


def test_impossible_quantiles_are_refused():
    with pytest.raises(ValueError, match=r"0\.5 < tau_min.*got 0\.4"):
        load_quantizer("recu", tau_min=0.4).weight((1, 1, 1, 1))


def test_a_constant_filter_stays_finite():
    side = load_quantizer("recu").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    assert weight.grad.isfinite().all()
