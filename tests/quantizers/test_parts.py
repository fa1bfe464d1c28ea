"""Weight sides that work in parts: the values and gradients of their plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bnnbench import load_quantizer, set_progress
from bnnbench.layers import binary_layers
from bnnbench.losses.regularizer import binarized_layers
from bnnbench.quantizers import parts
from bnnbench.quantizers.base import Side
from bnnbench.quantizers.surrogate import sign

METHODS = ("adabin", "irnet", "xnor")
SHAPES: dict[str, tuple[int, ...]] = {
    "convolution": (40, 24, 3, 3),
    "depthwise": (12, 1, 3, 3),
    "one tap": (64, 32, 1, 1),
    "linear": (10, 96),
}


def latent(shape: tuple[int, ...], dtype: torch.dtype, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    weight = spread * torch.randn(shape, dtype=torch.float64, generator=generator)
    weight += torch.linspace(-0.2, 0.3, len(weight)).view(-1, *(1,) * (len(shape) - 1))
    if len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight.to(dtype).requires_grad_()


def side_of(method: str, shape: tuple[int, ...], progress: float = 0.6) -> Any:
    side: Side = load_quantizer(method).weight(shape)
    set_progress(side, progress, 1.0)
    return side


def both(side: Any, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Value and gradient of the side, and of its plain formula."""
    found = []
    for function in (side, side._plain):
        value = function(weight)
        cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
        cotangent = torch.empty_like(value).copy_(cotangent)  # in the memory format of the weight
        (grad,) = torch.autograd.grad(value, weight, cotangent)
        found.append((value, grad))
    return found


@pytest.mark.parametrize("filters", [1, 3, 1000])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_are_those_of_the_plain_formula_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, method: str, shape: str, filters: int
) -> None:
    weight = latent(SHAPES[shape], torch.float32)
    monkeypatch.setattr(parts, "PART", filters * weight[0].numel())
    (value, grad), (plain, wanted) = both(side_of(method, SHAPES[shape]), weight)
    assert torch.equal(value, plain)
    assert torch.equal(grad, wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_term_over_the_latent_weight_adds_to_the_gradients_in_the_same_order(
    method: str, shape: str
) -> None:
    side = side_of(method, SHAPES[shape])
    side.has_readers = True
    grads = []
    for function in (side, side._plain):
        weight = latent(SHAPES[shape], torch.float32)  # a leaf, at which the gradients are added
        value = function(weight)
        term = (weight.flatten(1).abs() - 0.3).square().sum()  # read after it was quantized
        cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
        cotangent = torch.empty_like(value).copy_(cotangent)
        ((value * cotangent).sum() + 0.37 * term).backward()
        grads.append(weight.grad)
    assert torch.equal(*grads)


def test_terms_over_latent_weights_tell_the_weight_sides() -> None:
    spec = load_quantizer("adabin")
    net = torch.nn.Sequential(spec.conv2d(4, 4, 3), spec.conv2d(4, 4, 3))
    assert not any(layer.weight_quantizer.has_readers for _, layer in binary_layers(net))
    binarized_layers(net, "loss=kurtosis", "loss=task")
    assert all(layer.weight_quantizer.has_readers for _, layer in binary_layers(net))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_autograd_in_double(
    method: str, spread: float, progress: float
) -> None:
    shape = SHAPES["convolution"]
    weight = latent(shape, torch.float64, spread)
    (value, grad), (plain, wanted) = both(side_of(method, shape, progress), weight)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.25])
@pytest.mark.parametrize("method", METHODS)
def test_constant_filters_stay_finite_and_as_they_were(method: str, value: float) -> None:
    weight = latent(SHAPES["linear"], torch.float32)
    with torch.no_grad():
        weight[:4] = value
    (found, grad), (plain, wanted) = both(side_of(method, SHAPES["linear"]), weight)
    assert torch.equal(found, plain)
    assert grad.isfinite().all()
    torch.testing.assert_close(grad[4:], wanted[4:])
    assert torch.equal(grad[:4], wanted[:4])


@pytest.mark.parametrize("method", METHODS)
def test_the_value_is_its_decomposition(method: str) -> None:
    shape = SHAPES["convolution"]
    side, weight = side_of(method, shape), latent(shape, torch.float32)
    scale, code, offset = side.decompose(weight)
    torch.testing.assert_close(side(weight), scale * code + offset)


@pytest.mark.parametrize("method", METHODS)
def test_the_weight_is_left_as_it_was(method: str) -> None:
    for dtype in (torch.float32, torch.float64):
        weight = latent(SHAPES["linear"], dtype)
        before = weight.detach().clone()
        both(side_of(method, SHAPES["linear"]), weight)
        assert torch.equal(weight, before)


def test_moments_are_those_of_torch() -> None:
    weight = latent(SHAPES["convolution"], torch.float32).detach()
    for correction in (0, 1):
        variance, mean = parts.moments(weight, correction)
        wanted = torch.var_mean(weight.double(), (1, 2, 3), correction=correction, keepdim=True)
        torch.testing.assert_close((variance, mean), wanted)


def test_a_mean_has_the_last_bit_of_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        weight = 0.02 * torch.randn(4096, 300, generator=generator)
        wanted = torch.var_mean(weight, 1, correction=0, keepdim=True)[1]
        variance, mean = parts.moments(weight)
        assert torch.equal(parts.rounded_mean(weight, variance, mean), wanted)


def test_signs_in_place_are_those_of_the_surrogate() -> None:
    x = torch.tensor([-2.0, -1e-45, -0.0, 0.0, 1e-45, 3.0, torch.inf, -torch.inf])
    assert torch.equal(parts.to_signs(x.clone()), sign(x))


@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_network_has_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    shape = SHAPES["linear"]
    side, seen = side_of(method, shape), []
    plain = side._plain
    monkeypatch.setattr(side, "_plain", lambda w: seen.append(1) or plain(w))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    side(latent(shape, torch.float32))
    assert seen
