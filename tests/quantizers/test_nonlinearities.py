"""RPReLU and Maxout against closed forms, the parameters' gradients included."""

import pytest
import torch
from torch import Tensor

from bnnbench.quantizers import NONLINEARITIES, Hardtanh, Maxout, RPReLU


def _parameters(module: torch.nn.Module) -> list[Tensor]:
    """Random per-channel parameters (C,), set in place."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return [parameter.detach().view(1, -1, 1, 1) for parameter in module.parameters()]


def _over_pixels(x: Tensor) -> Tensor:
    return x.sum(dim=(0, 2, 3))


def test_rprelu(x, gradient, upstream):
    module = RPReLU(4).double()
    shift_in, slope, shift_out = _parameters(module)
    g, inner = upstream(x), x - shift_in
    positive = inner > 0
    value, grad = gradient(module, x, g)
    torch.testing.assert_close(value, torch.where(positive, inner, slope * inner) + shift_out)
    expected = torch.where(positive, g, slope * g)
    torch.testing.assert_close(grad, expected)
    torch.testing.assert_close(module.shift_in.grad, -_over_pixels(expected))
    torch.testing.assert_close(module.slope.grad, _over_pixels(g * inner.clamp(max=0)))
    torch.testing.assert_close(module.shift_out.grad, _over_pixels(g))


def test_maxout(x, gradient, upstream):
    module = Maxout(4).double()
    positive, negative = _parameters(module)
    x = torch.where(x == 0, 0.1, x)  # at the kink either slope is right
    g = upstream(x)
    value, grad = gradient(module, x, g)
    relu, relu_of_minus = x.clamp(min=0), (-x).clamp(min=0)
    torch.testing.assert_close(value, positive * relu - negative * relu_of_minus)
    torch.testing.assert_close(grad, g * torch.where(x > 0, positive, negative))
    torch.testing.assert_close(module.positive.grad, _over_pixels(g * relu))
    torch.testing.assert_close(module.negative.grad, -_over_pixels(g * relu_of_minus))


def test_published_initial_values(x):
    start = torch.where(x > 0, x, 0.25 * x)
    for module in (RPReLU(4), Maxout(4)):
        torch.testing.assert_close(module.double()(x), start)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_every_nonlinearity_keeps_the_shape_and_passes_gradients(name, x):
    module = NONLINEARITIES[name](4).double()
    leaf = x.clone().requires_grad_()
    out = module(leaf * 1)  # some work in place, and a leaf may not be changed in place
    out.sum().backward()
    assert out.shape == x.shape
    assert leaf.grad is not None
    for parameter in module.parameters():
        assert parameter.grad is not None


def _passed(module: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor, list[torch.dtype]]:
    """Value behind a convolution, gradient, and what compiled code kept for it."""
    leaf, kept = x.clone().requires_grad_(), []
    conv = torch.nn.Conv2d(4, 4, 3, bias=False).double()
    torch.nn.init.constant_(conv.weight, 0.5)
    graph = torch.compile(lambda x: conv(module(x * 1)), backend="aot_eager_decomp_partition")
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: kept.append(saved.dtype) or saved, lambda saved: saved
    ):
        value = graph(leaf)
    (value * torch.arange(value.numel()).view_as(value)).sum().backward()
    assert leaf.grad is not None
    return value, leaf.grad, kept


def test_compiled_hardtanh_is_torchs_and_keeps_no_boolean_map():
    edges = torch.tensor([-1.0, 1.0, -1.0000001, 1.0000001, 0.9999999, 0.0, -0.0, torch.inf])
    x = torch.linspace(-2, 2, 2 * 4 * 5 * 5).double().roll(7)
    x[: len(edges)] = edges
    x = x.view(2, 4, 5, 5)
    value, gradient, kept = _passed(Hardtanh(inplace=True), x)
    expected_value, expected_gradient, of_torch = _passed(torch.nn.Hardtanh(), x)
    assert torch.equal(value, expected_value)
    assert torch.equal(gradient, expected_gradient)
    assert torch.bool in of_torch  # or the class is needed no more
    assert torch.bool not in kept
