"""BiPer: the sine and its square wave, the per-sample window in training, the learned scale."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer
from bnnbench.layers import BinaryConv2d

F20 = 20.0


@pytest.mark.parametrize("frequency", [F20, 7.5])
@pytest.mark.parametrize("stage", [1, 2])
def test_weight(stage, frequency, weight, gradient, upstream):
    spec, g = load_quantizer("biper", stage=stage, frequency=frequency), upstream(weight)
    value, grad = gradient(spec.weight((6, 4, 3, 3)), weight, g)
    wave = np.sin(frequency * weight.numpy())
    assert_allclose(value, wave if stage == 1 else np.where(wave >= 0, 1, -1))
    assert_allclose(grad, g.numpy() * frequency * np.cos(frequency * weight.numpy()), rtol=1e-10)


def test_codes_are_a_square_wave_of_the_latent_weight():
    side = load_quantizer("biper").weight((1, 5, 1, 1))
    half = np.pi / F20
    latent = torch.tensor([0.0, -0.0, 0.5 * half, 1.5 * half, 2.5 * half], dtype=torch.float64)
    parts = side.decompose(latent.view(1, 5, 1, 1))
    assert parts.code.flatten().tolist() == [1, 1, 1, -1, 1]
    assert (float(parts.scale), float(parts.offset)) == (1, 0)


def test_stages_have_their_bits():
    sides = [load_quantizer("biper", stage=stage).weight((1, 1, 1, 1)) for stage in (1, 2)]
    assert [side.bits for side in sides] == [32, 1]
    with pytest.raises(NotImplementedError, match="32 bits"):
        sides[0].decompose(torch.zeros(1, 1, 1, 1))


def _standardised_gradient(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Through ``x / sqrt(var + 1e-5)``, var unbiased, sample by sample."""
    gradients = np.empty_like(x)
    for n, sample in enumerate(x):
        size, centred = sample.size, sample - sample.mean()
        std = np.sqrt((centred**2).sum() / (size - 1) + 1e-5)
        to_scaled = g[n] * np.maximum(0, 2 - 2 * np.abs(sample / std))
        to_std = -(to_scaled * sample).sum() / std**2
        gradients[n] = to_scaled / std + to_std * centred / ((size - 1) * std)
    return gradients


def test_activation_in_training(x, gradient, upstream):
    x[1] *= 5  # samples of different spread
    g = upstream(x)
    value, grad = gradient(load_quantizer("biper").activation(4).double(), x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    assert_allclose(grad, _standardised_gradient(x.numpy(), g.numpy()), rtol=1e-9, atol=1e-13)


def test_activation_in_evaluation_is_approx_sign_of_the_input_itself(x, gradient, upstream):
    side, g = load_quantizer("biper").activation(4).eval(), upstream(x)
    value, grad = gradient(side, x, g)
    assert torch.equal(value, side.train()(x))
    torch.testing.assert_close(grad, g * (2 - 2 * x.abs()).clamp(min=0))


def _conv(**options) -> BinaryConv2d:
    torch.manual_seed(0)
    return load_quantizer("biper", **options).conv2d(4, 6, 3, bias=False).double()


def test_learned_scale_is_per_output_channel(x, gradient, upstream):
    conv = _conv()
    alpha = conv.output.scale
    assert alpha.shape == (6,)
    assert 0 <= alpha.min() < 0.5 < alpha.max() <= 1  # U(0, 1)
    codes = conv.activation_quantizer(x), conv.weight_quantizer(conv.weight).detach()
    plain = F.conv2d(*codes)
    g, factors = upstream(plain), alpha.detach().view(6, 1, 1)
    out, _ = gradient(conv, x, g)
    torch.testing.assert_close(out, plain * factors)
    torch.testing.assert_close(alpha.grad, (g * plain).sum(dim=(0, 2, 3)))
    to_code = torch.nn.grad.conv2d_weight(codes[0], conv.weight.shape, g * factors)
    expected = to_code * F20 * torch.cos(F20 * conv.weight.detach())
    torch.testing.assert_close(conv.weight.grad, expected)


def test_second_stage_starts_from_the_first(x):
    first, second = _conv(stage=1).eval(), _conv(stage=2).eval()
    first.weight.data.normal_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.output.scale, first.output.scale)
    waves = first.weight_quantizer(first.weight).detach()
    assert torch.equal(second.weight_quantizer(second.weight), torch.where(waves >= 0, 1.0, -1.0))


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_flow_through_every_geometry(stage, geometry, x):
    conv = load_quantizer("biper", stage=stage).conv2d(4, 6, 3, padding=2, **geometry).double()
    x.requires_grad_()
    out = conv(x)
    out.backward(torch.randn_like(out))
    for tensor in (x, *conv.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize(("option", "value"), [("stage", 3), ("frequency", 0.0)])
def test_unknown_stages_and_frequencies_are_refused(option, value):
    with pytest.raises(ValueError, match=f"quantizer.{option}={value}"):
        load_quantizer("biper", **{option: value}).weight((1, 1, 1, 1))
