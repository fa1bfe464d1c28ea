"""SiMaN: codes by magnitude, clipped latent weights, per-sample centring, output scale."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress
from bnnbench.quantizers.siman import percentiles


def _standardized(x: np.ndarray) -> tuple[np.ndarray, float]:
    d = x - x.mean()
    std = np.sqrt((d**2).sum() / (x.size - 1) + 1e-5)
    return d / std, std


def _through(to_v: np.ndarray, v: np.ndarray, std: float) -> np.ndarray:
    """A gradient behind the standardisation."""
    to_centred = (to_v - v * (to_v * v).sum() / (v.size - 1)) / std
    return to_centred - to_centred.mean()


def _weight(w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, filter by filter."""
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o in range(len(w)):
        v, std = _standardized(w[o])
        order = np.argsort(-np.abs(v).ravel())
        code = np.full(v.size, -1.0)
        code[order[: v.size // 2]] = 1
        values[o] = code.reshape(v.shape)
        gradients[o] = _through(g[o] * np.sign(v), v, std)
    return values, gradients


def _activation(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, sample by sample."""
    values, gradients = np.empty_like(x), np.empty_like(x)
    for i in range(len(x)):
        v, std = _standardized(x[i])
        values[i] = np.where(x[i] >= x[i].mean(), 1, -1)
        gradients[i] = _through(g[i] * np.maximum(0, 2 - 2 * np.abs(v)), v, std)
    return values, gradients


@pytest.mark.parametrize("taps", [(3, 3), (1, 1), (3, 1)])  # 36, 4 and 12 weights a filter
def test_weight(taps, weight, gradient, upstream):
    weight = weight[:, :, : taps[0], : taps[1]].contiguous()
    side, g = load_quantizer("siman").weight(tuple(weight.shape)).double(), upstream(weight)
    value, grad = gradient(side, weight, g)
    expected = _weight(weight.numpy(), g.numpy())
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("channels", "ones"), [(4, 18), (3, 13)])
def test_half_of_an_odd_filter_is_rounded_down(channels, ones, weight):
    value = load_quantizer("siman").weight((6, channels, 3, 3))(weight[:, :channels])
    assert ((value > 0).sum(dim=(1, 2, 3)) == ones).all()


def test_signs_of_the_centred_weights_are_not_used(weight):
    weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    side = load_quantizer("siman").weight(tuple(weight.shape))
    assert torch.equal(side(weight), side(-weight))


def test_equal_magnitudes_at_the_cut_are_plus_one():
    weight = torch.tensor([0.5, -0.5, 0.5, -0.5, 0.0, 0.0]).view(1, 6, 1, 1)
    value = load_quantizer("siman").weight((1, 6, 1, 1))(weight)
    assert value.flatten().tolist() == [1, 1, 1, 1, -1, -1]


@pytest.mark.parametrize("mode", [True, False])
def test_activation_is_centred_in_training_and_evaluation(mode, x, gradient, upstream):
    side, g = load_quantizer("siman").activation(4).double().train(mode), upstream(x)
    x = x + torch.tensor([0.0, 3.0, -3.0], dtype=torch.float64).view(3, 1, 1, 1)
    value, grad = gradient(side, x, g)
    expected = _activation(x.numpy(), g.numpy())
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("epoch", "percent"), [(0, 15.0), (3, 3.75), (4, 0.0)])
def test_a_step_clips_the_layer_s_magnitudes(epoch, percent, weight):
    side = load_quantizer("siman").weight(tuple(weight.shape)).double()
    set_progress(side, epoch, 4)
    weight[0] *= 10  # the percentiles are not this filter's own
    w = weight.numpy() - weight.numpy().mean(axis=(1, 2, 3), keepdims=True)
    low, high = np.percentile(np.abs(w), [percent, 100 - percent])
    latent = nn.Parameter(weight.clone())
    side.after_step(latent)
    assert_allclose(latent.detach(), np.sign(w) * np.abs(w).clip(low, high), rtol=1e-6)
    clipped = (~np.isclose(latent.detach().numpy(), w)).mean()
    assert clipped == pytest.approx(2 * percent / 100, abs=0.01)


def test_neither_mode_of_a_forward_changes_latent_weights(x):
    """The authors' forward clips the stored weights, in evaluation too."""
    conv = load_quantizer("siman").conv2d(4, 6, 3).double()
    before = conv.weight.detach().clone()
    for mode in (True, False):
        conv.train(mode)(x)
        assert torch.equal(conv.weight, before)


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("siman").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w = conv.weight.detach().numpy()
    codes = [_activation(x.numpy(), x.numpy())[0], _weight(w, w)[0]]
    codes = [torch.tensor(code).requires_grad_() for code in codes]
    scale = conv.output.scale.detach().view(-1, 1, 1)
    plain = F.conv2d(*codes, None, **options)
    (scale * plain).backward(g)
    torch.testing.assert_close(out, scale * plain)
    to_x = _activation(x.numpy(), codes[0].grad.numpy())[1]
    assert_allclose(leaf.grad, to_x, rtol=1e-9, atol=1e-12)
    assert_allclose(conv.weight.grad, _weight(w, codes[1].grad.numpy())[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(conv.output.scale.grad, (g * plain.detach()).sum(dim=(0, 2, 3)))


def test_output_scale_starts_at_the_filter_s_mean_magnitude():
    conv = load_quantizer("siman").conv2d(4, 6, 3)
    torch.testing.assert_close(conv.output.scale, conv.weight.abs().mean(dim=(1, 2, 3)))


def test_schedule_survives_a_state_dict():
    spec = load_quantizer("siman")
    net, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(net, 3, 4)
    fresh.load_state_dict(net.state_dict())
    assert float(fresh[0].weight_quantizer.schedule.percent) == 3.75


def test_percentiles_are_numpys_beyond_the_size_that_torchs_take():
    x = torch.rand(2**24 + 3, generator=torch.Generator().manual_seed(0))
    expected = np.percentile(x.numpy(), [7.5, 92.5])
    assert_allclose(percentiles(x, torch.tensor(7.5)), expected, rtol=1e-6)


def test_impossible_percentiles_are_refused():
    with pytest.raises(ValueError, match=r"quantizer\.percent=50"):
        load_quantizer("siman", percent=50).weight((1, 1, 1, 1))


def test_a_constant_filter_stays_finite():
    side = load_quantizer("siman").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
