"""The sign, the surrogate rules and the rounding against closed forms."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.quantizers.surrogate import (
    approx_sign,
    clip,
    ede,
    identity,
    round_ste,
    sign,
    sign_ste,
)

POINTS = torch.tensor(
    [-3.0, -1.0, -0.999, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.3, 0.999, 1.0, 1.001],
    dtype=torch.float64,
)


def _signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


RULES = {
    "identity": (identity, lambda x, k, t: np.ones_like(x)),
    "clip": (clip, lambda x, k, t: (np.abs(x) < 1).astype(float)),
    "approx_sign": (approx_sign, lambda x, k, t: np.where(np.abs(x) < 1, 2 - 2 * np.abs(x), 0.0)),
    "ede": (ede, lambda x, k, t: k * t / np.cosh(t * x) ** 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 16, 37])  # vectorised and remainder loops
def test_sign_has_two_values_and_is_plus_one_at_both_zeros(dtype, size):
    for value, expected in [(0.0, 1), (-0.0, 1), (-1e-38, -1), (1e-38, 1), (float("-inf"), -1)]:
        assert (sign(torch.full((size,), value, dtype=dtype)) == expected).all()


def test_sign_leaves_its_argument_alone():
    x = torch.tensor([-2.0, 0.0, 3.0])
    sign(x)
    assert x.tolist() == [-2, 0, 3]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("k", "t"), [(1000.0, 1e-3), (1.0, 1.0), (1.0, 10.0)])
def test_gradient_is_the_rules_closed_form(name, k, t, gradient, upstream):
    rule, closed_form = RULES[name]
    params = [torch.tensor(p, dtype=torch.float64) for p in (k, t)] if name == "ede" else []
    g = upstream(POINTS)
    value, grad = gradient(lambda x: sign_ste(x, rule, *params), POINTS, g)
    assert_allclose(value, _signs(POINTS.numpy()))
    assert_allclose(grad, g.numpy() * closed_form(POINTS.numpy(), k, t), rtol=1e-9, atol=1e-14)


def test_scale_multiplies_the_value_but_not_the_gradient(gradient, upstream):
    g, scale = upstream(POINTS), torch.tensor(0.3, dtype=torch.float64)
    value, grad = gradient(lambda x: sign_ste(x, clip, scale=scale), POINTS, g)
    assert_allclose(value, 0.3 * _signs(POINTS.numpy()))
    assert_allclose(grad, g * (POINTS.abs() < 1))


def test_clip_is_the_same_rule_when_compiled(monkeypatch):
    x = torch.linspace(-2, 2, 4001)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    eager = clip(grad, x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(clip(grad, x), eager)
    edges = torch.tensor([-1.0, 1.0, torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))])
    assert clip(torch.ones(3), edges).tolist() == [0, 0, 1]


def test_rules_leave_input_and_gradient_alone():
    x, grad = torch.randn(50), torch.randn(50)
    before = x.clone(), grad.clone()
    for rule, params in ((clip, ()), (approx_sign, ()), (ede, (torch.ones(()), torch.ones(())))):
        rule(grad, x, *params)
        assert torch.equal(x, before[0])
        assert torch.equal(grad, before[1])


def test_round_goes_to_the_nearest_even_integer_with_the_gradient_of_the_identity(
    gradient, upstream
):
    x = torch.tensor([-1.5, -0.5, 0.49, 0.5, 1.5, 2.5, 7.51], dtype=torch.float64)
    value, grad = gradient(round_ste, x, upstream(x))
    assert_allclose(value, [-2, 0, 0, 0, 2, 2, 8])
    assert torch.equal(grad, upstream(x))


@pytest.mark.parametrize("with_gradient", [True, False])
def test_signs_compile_into_one_graph(with_gradient):
    """Whatever the number of the rule's parameters; dynamo treats calls without gradient apart."""
    k, t = torch.ones(()), torch.ones(())

    def signs(x: torch.Tensor) -> torch.Tensor:
        return sign_ste(x, clip) + sign_ste(x, ede, k, t) + sign_ste(x, clip, scale=t)

    x = torch.linspace(-2, 2, 9, requires_grad=with_gradient)
    torch._dynamo.reset()
    compiled = torch.compile(signs, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), signs(x))
    if with_gradient:
        expected, actual = (torch.autograd.grad(f(x).sum(), x) for f in (signs, compiled))
        torch.testing.assert_close(actual, expected)
