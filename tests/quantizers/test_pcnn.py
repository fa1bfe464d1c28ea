"""PCNN's projections against Eqs. 3.29, 3.52, 3.55 and 3.57 of the group's book."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnnbench.quantizers.pcnn import PCNNWeight


def side(shape: tuple[int, ...] | torch.Size, projections: int = 1) -> PCNNWeight:
    torch.manual_seed(1)
    return PCNNWeight(shape, projections).double()


def test_one_amplitude_the_mean_magnitude_of_the_layer(weight: Tensor) -> None:
    amplitude = float(weight.abs().mean())
    value = side(weight.shape)(weight)
    assert value.unique().tolist() == pytest.approx([-amplitude, amplitude])
    assert torch.equal(value > 0, weight >= 0)


@pytest.mark.parametrize("projections", [1, 3])
def test_gradients_use_every_element_of_w(
    weight: Tensor, upstream, gradient, projections: int
) -> None:
    quantizer, g = side(weight.shape, projections), upstream(weight)
    w = quantizer.w.detach()
    _, grad = gradient(quantizer, weight, g)
    expected = torch.zeros_like(weight)
    for j in range(projections):
        inside = ((w[j] * weight).abs() <= 1).double()
        expected += g / projections * inside * w[j]
        own = (g / projections * inside * weight).sum(dim=(0, 1))
        assert quantizer.matrices.grad is not None
        torch.testing.assert_close(quantizer.matrices.grad[j, 0], own)
    torch.testing.assert_close(grad, expected)


def test_several_projections_average_their_signs(weight: Tensor) -> None:
    quantizer = side(weight.shape, 3)
    assert quantizer.bases == 3
    w, amplitude = quantizer.w.detach(), weight.abs().mean()
    expected = sum(amplitude * torch.sign(w[j]) * torch.sign(weight) for j in range(3)) / 3
    torch.testing.assert_close(quantizer(weight).detach(), expected)
    assert len(quantizer(weight).unique()) > 2  # the codes differ


def test_no_projection_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantizer\.projections=0"):
        PCNNWeight((1, 1, 3, 3), 0)


def test_one_projection_takes_the_sign_of_the_mean_of_w(weight: Tensor) -> None:
    quantizer = side(weight.shape)
    quantizer.matrices.data[0, 0, 0, 0] = -0.1  # the other eight keep the mean above 0
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    torch.testing.assert_close(quantizer(weight).detach(), weight.abs().mean() * signs)


@pytest.mark.parametrize("projections", [1, 3])
def test_decomposition_is_the_value(weight: Tensor, projections: int) -> None:
    quantizer = side(weight.shape, projections)
    parts = quantizer.decompose(weight)
    expected = quantizer(weight).detach()
    torch.testing.assert_close(parts.scale * parts.code + parts.offset, expected)


def test_modulation_is_the_mean_over_the_projections(weight: Tensor) -> None:
    quantizer = side(weight.shape, 3)
    expected = weight * sum(quantizer.matrices.detach()[j, 0] for j in range(3)) / 3
    torch.testing.assert_close(quantizer.modulated(weight).detach(), expected)
