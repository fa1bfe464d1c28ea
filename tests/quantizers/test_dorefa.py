"""DoReFa: k-bit weights and activations on their grids, gradients through the normalisation."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer

MULTI_BIT = [2, 4, 8]


def test_one_bit_weight_has_one_scale_a_layer(weight, gradient, upstream):
    side, g = load_quantizer("dorefa").weight(tuple(weight.shape)), upstream(weight)
    value, grad = gradient(side, weight, g)
    w = weight.numpy()
    assert_allclose(value, np.abs(w).mean() * np.where(w >= 0, 1, -1), rtol=1e-14)
    assert torch.equal(grad, g)
    assert side.decompose(weight).scale.numel() == 1


@pytest.mark.parametrize("bits", MULTI_BIT)
def test_weight(bits, weight, gradient, upstream):
    spec, g = load_quantizer("dorefa", weight_bits=bits), upstream(weight)
    value, grad = gradient(spec.weight(tuple(weight.shape)), weight, g)
    tanh, levels = np.tanh(weight.numpy()), 2**bits - 1
    largest = np.abs(tanh).max()
    assert_allclose(value, 2 * np.round(levels * (tanh / (2 * largest) + 0.5)) / levels - 1)

    slope, g = 1 - tanh**2, g.numpy()
    expected = g * slope / largest
    top = np.unravel_index(np.abs(tanh).argmax(), tanh.shape)
    expected[top] -= (g * tanh).sum() / largest**2 * np.sign(tanh[top]) * slope[top]
    assert_allclose(grad, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("bits", MULTI_BIT)
def test_values_lie_on_the_grid_and_reach_its_ends(bits, weight, x):
    spec = load_quantizer("dorefa", weight_bits=bits, activation_bits=bits)
    levels = 2**bits - 1
    for value, low in ((spec.weight(tuple(weight.shape))(weight), -1), (spec.activation(4)(x), 0)):
        steps = (value - low) * levels / (1 - low)
        assert_allclose(steps, steps.round(), atol=1e-9)
        assert value.abs().max() == 1
        assert value.min() >= low
    assert value.min() == 0


@pytest.mark.parametrize("bits", [1, *MULTI_BIT])
def test_activation_gradient_is_the_clips(bits, x, gradient, upstream):
    x = torch.where((x == 0) | (x == 1), 0.2, x)  # at the clip's kinks either side is right
    spec, g = load_quantizer("dorefa", activation_bits=bits), upstream(x)
    value, grad = gradient(spec.activation(4), x, g)
    levels, points = 2**bits - 1, x.numpy()
    expected = np.floor(levels * points.clip(0, 1) + 0.5) / levels  # 0.5 is coded as +1 (sign(0))
    ties = (levels * points) % 1 == 0.5
    assert_allclose(value[~ties], expected[~ties])
    torch.testing.assert_close(grad, torch.where((x > 0) & (x < 1), g, 0.0))


def test_one_bit_activations_are_zero_and_one(x):
    side = load_quantizer("dorefa").activation(4)
    assert side(x).unique().tolist() == [0, 1]
    parts = side.decompose(x)
    assert (float(parts.scale), float(parts.offset)) == (0.5, 0.5)


def test_32_bits_are_full_precision(weight, x, gradient, upstream):
    spec = load_quantizer("dorefa", weight_bits=32, activation_bits=32)
    for side, value in ((spec.weight(tuple(weight.shape)), weight), (spec.activation(4), x)):
        out, grad = gradient(side, value, upstream(value))
        assert torch.equal(out, value)
        assert torch.equal(grad, upstream(value))
        assert side.bits == 32


@pytest.mark.parametrize("bits", [2, 32])
def test_only_one_bit_has_a_binary_code(bits, weight, x):
    spec = load_quantizer("dorefa", weight_bits=bits, activation_bits=bits)
    for side, value in ((spec.weight(tuple(weight.shape)), weight), (spec.activation(4), x)):
        assert side.bits == bits
        with pytest.raises(NotImplementedError, match=f"{bits} bits"):
            side.decompose(value)


@pytest.mark.parametrize("bits", [0, 9, 16])
def test_other_widths_are_refused(bits):
    spec = load_quantizer("dorefa", weight_bits=bits, activation_bits=bits)
    with pytest.raises(ValueError, match=f"weight_bits={bits}.*1 to 8"):
        spec.weight((1, 1, 1, 1))
    with pytest.raises(ValueError, match=f"activation_bits={bits}.*1 to 8"):
        spec.activation(1)
