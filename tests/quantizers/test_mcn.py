"""MCN's modulated filters against Eqs. 3.15 and 3.26 of the group's book."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnnbench.quantizers.mcn import MCNWeight


def side(shape: tuple[int, ...] | torch.Size, **options: object) -> MCNWeight:
    torch.manual_seed(0)
    return MCNWeight(shape, **{"planes": 4, "scalar_planes": False} | options).double()  # pyright: ignore


def test_every_filter_is_signs_times_its_plane(weight: Tensor) -> None:
    quantizer = side(weight.shape)
    assert quantizer.m.shape == (4, 1, 3, 3)
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    for output, value in enumerate(quantizer(weight).detach()):
        torch.testing.assert_close(value, signs[output] * quantizer.m.detach()[output % 4])


def test_gradients(weight: Tensor, upstream, gradient) -> None:
    quantizer, g = side(weight.shape), upstream(weight)
    m = quantizer.m.detach()
    _, grad = gradient(quantizer, weight, g)
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    expected = torch.zeros_like(m)
    for output in range(len(weight)):
        torch.testing.assert_close(grad[output], g[output] * m[output % 4])
        expected[output % 4] += (g[output] * signs[output]).sum(dim=0)
    torch.testing.assert_close(quantizer.m.grad, expected)


def test_scalar_planes_are_averages(weight: Tensor) -> None:
    quantizer = side(weight.shape, scalar_planes=True)
    for output, value in enumerate(quantizer(weight).detach()):
        mean = float(quantizer.m.detach()[output % 4].mean())
        assert value.unique().tolist() == pytest.approx([-mean, mean])


def test_binary_filters_are_constants_of_the_reconstruction(weight: Tensor) -> None:
    leaf = weight.clone().requires_grad_()
    quantizer = side(weight.shape)
    quantizer.reconstructed(leaf).sum().backward()
    assert leaf.grad is None
    assert quantizer.m.grad is not None


def test_no_plane_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantizer\.planes=0"):
        side((1, 1, 3, 3), planes=0)
