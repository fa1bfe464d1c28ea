"""The Bayesian losses against Eqs. 6 to 9 and 13 to 18 of arXiv 1908.06314, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import bnnbench
from bnnbench.losses.bayesian_kernel import kernel_loss

LAMBDA, NU = 0.3, 0.07


@pytest.fixture
def x() -> Tensor:
    """Latent weights (5, 4, 3, 3)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=generator)


@pytest.fixture
def w() -> Tensor:
    """A modulation (3, 3)."""
    return torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mu() -> Tensor:
    return torch.linspace(0.3, 0.9, 5, dtype=torch.float64)


@pytest.fixture
def sigma() -> Tensor:
    return torch.linspace(0.2, 0.6, 5, dtype=torch.float64)


def written_out(x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor) -> float:
    """Eq. 7 summed kernel by kernel and weight by weight."""
    total, mean = 0.0, float(w.mean())
    for kernel in range(len(x)):
        m, s = float(mu[kernel]), float(sigma[kernel])
        flat = (w * x[kernel]).flatten().tolist()
        for value, scaled in zip(x[kernel].flatten().tolist(), flat, strict=True):
            binary = mean if value >= 0 else -mean
            mode = m if value >= 0 else -m
            total += (binary - scaled) ** 2
            total += NU * ((value - mode) ** 2 / s**2 + math.log(s**2))
    return total


def test_kernel_loss_is_equation_7(x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor) -> None:
    loss = bnnbench.losses.bayesian_kernel_loss(x, mu, sigma, w, NU)
    assert float(loss) == pytest.approx(written_out(x, w, mu, sigma), rel=1e-12)


def test_a_scalar_modulation_is_a_constant_vector(x: Tensor, mu: Tensor, sigma: Tensor) -> None:
    vector = torch.full((3, 3), 0.4, dtype=torch.float64)
    losses = [bnnbench.losses.bayesian_kernel_loss(x, mu, sigma, w, NU) for w in (0.4, vector)]
    torch.testing.assert_close(*losses)


def test_gradients_are_equations_13_and_16_to_18(
    x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor
) -> None:
    """With the binary weights constant; Eqs. 17 and 18 carry a further 1/K, Eqs. 9 and 13 none."""
    leaves = [tensor.clone().requires_grad_() for tensor in (x, w, mu, sigma)]
    x_, w_, mu_, sigma_ = leaves
    (LAMBDA / 2 * bnnbench.losses.bayesian_kernel_loss(x_, mu_, sigma_, w_, NU)).backward()
    signs = torch.where(x >= 0, 1.0, -1.0).double()
    binary, size = w.mean() * signs, x[0].numel()
    m, s = mu.view(5, 1, 1, 1), sigma.view(5, 1, 1, 1)
    eq13 = LAMBDA * (w * (w * x - binary) + NU * (x - signs * m) / s**2)
    eq16 = LAMBDA * ((w * x - binary) * x).sum(dim=(0, 1))
    eq17 = LAMBDA * NU / size * ((m - x.abs()) / s**2).sum(dim=(1, 2, 3))
    eq18 = LAMBDA * NU / size * (1 / s - (x.abs() - m) ** 2 / s**3).sum(dim=(1, 2, 3))
    expected = (eq13, eq16, size * eq17, size * eq18)
    for leaf, closed_form in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, closed_form, rtol=1e-12, atol=1e-14)


def prior(x: Tensor, mu: float, sigma: float, mixture: str = "split") -> tuple[Tensor, Tensor]:
    """Value of the prior's part at each weight of ``x`` (n,), and its gradient."""
    leaf = x.clone().requires_grad_()
    one = torch.ones(len(x), dtype=x.dtype)
    losses = kernel_loss(
        leaf[:, None], leaf[:, None], leaf[:, None].detach(), mu * one, sigma * one, mixture
    )
    losses.prior.backward()
    assert leaf.grad is not None
    single = [
        kernel_loss(v, v, v, mu * one[:1], sigma * one[:1], mixture).prior for v in x.view(-1, 1, 1)
    ]
    return torch.stack(single), leaf.grad


def test_no_pull_at_the_modes_and_the_stated_one_elsewhere() -> None:
    mu, sigma = 0.5, 0.2
    x = torch.tensor([mu, -mu, 0.9, -0.1, 0.0], dtype=torch.float64)
    _, gradient = prior(x, mu, sigma)
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2].item() == pytest.approx(2 * (0.9 - mu) / sigma**2)
    assert gradient[3].item() == pytest.approx(2 * (-0.1 + mu) / sigma**2)
    assert gradient[4].item() == pytest.approx(-2 * mu / sigma**2)  # zero is positive


def test_even_in_the_weights(x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor) -> None:
    losses = [bnnbench.losses.bayesian_kernel_loss(v, mu, sigma, w, NU) for v in (x, -x)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_split_minus_exact_mixture(ratio: float) -> None:
    """In nats a weight: log(1 + exp(-2 |x| mu / sigma^2)); log 2 at zero, nothing far away."""
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    mu, sigma = ratio, 1.0
    split, exact = (prior(x, mu, sigma, mixture)[0] for mixture in ("split", "exact"))
    expected = torch.log1p(torch.exp(-2 * x.abs() * mu / sigma**2))
    torch.testing.assert_close((split - exact) / 2, expected)
    assert float((split - exact)[6] / 2) == pytest.approx(math.log(2))


def test_exact_mixture_is_the_log_density_of_two_gaussians() -> None:
    mu, sigma = 0.7, 0.4
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    modes = [torch.distributions.Normal(mode, sigma).log_prob(x) for mode in (mu, -mu)]
    density = torch.logsumexp(torch.stack(modes), 0) - math.log(2)
    constant = math.log(2 * math.pi) + 2 * math.log(2)  # what Eq. 7 drops, a weight
    value = prior(x, mu, sigma, "exact")[0] + 2 * math.log(sigma) + constant
    torch.testing.assert_close(value, -2 * density)


def test_mean_magnitude_and_its_variance_minimise_the_prior(x: Tensor, w: Tensor) -> None:
    magnitudes = x.abs().flatten(1)
    best = magnitudes.mean(dim=1), magnitudes.std(dim=1, correction=0)
    mu, sigma = (value.clone().requires_grad_() for value in best)
    bnnbench.losses.bayesian_kernel_loss(x, mu, sigma, w, NU).backward()
    for gradient in (mu.grad, sigma.grad):
        torch.testing.assert_close(gradient, torch.zeros(5, dtype=torch.float64))


def test_unbounded_below_as_sigma_falls(w: Tensor) -> None:
    x = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64)
    mu = torch.tensor([0.5], dtype=torch.float64)
    losses = [
        float(bnnbench.losses.bayesian_kernel_loss(x, mu, torch.tensor([s]).double(), w, NU))
        for s in (1e-1, 1e-3, 1e-9)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_unknown_mixture() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="mixture='sum'"):
        bnnbench.losses.bayesian_kernel_loss(one.view(1, 1), one, one, 1.0, 1.0, mixture="sum")


@pytest.fixture
def features() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (6, 3), targets, centers (4, 3), sigma (4, 3); one class never occurs."""
    generator = torch.Generator().manual_seed(2)
    f = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    c = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    sigma = 0.5 + torch.rand(4, 3, dtype=torch.float64, generator=generator)
    return f, torch.tensor([0, 1, 0, 3, 3, 3]), c, sigma


def test_feature_loss_is_equation_8(features: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    f, y, c, sigma = features
    total = 0.0
    for sample, label in zip(f.tolist(), y.tolist(), strict=True):
        for k, value in enumerate(sample):
            distance, s = value - float(c[label, k]), float(sigma[label, k])
            total += distance**2 + distance**2 / s**2 + math.log(s**2)
    assert float(bnnbench.losses.bayesian_feature_loss(f, y, c, sigma)) == pytest.approx(total)


def test_feature_gradients(features: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """theta (f - c)(1 + 1 / sigma^2), and the plain gradient of sigma."""
    f, y, c, sigma = features
    f_, sigma_ = f.clone().requires_grad_(), sigma.clone().requires_grad_()
    theta = 0.2
    (theta / 2 * bnnbench.losses.bayesian_feature_loss(f_, y, c, sigma_)).backward()
    torch.testing.assert_close(f_.grad, theta * (f - c[y]) * (1 + sigma[y] ** -2))
    expected = torch.zeros_like(sigma)
    for sample, label in zip(f, y.tolist(), strict=True):
        s = sigma[label]
        expected[label] += theta * (1 / s - (sample - c[label]) ** 2 / s**3)
    torch.testing.assert_close(sigma_.grad, expected)


def test_unit_deviation_is_twice_the_center_loss(
    features: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    f, y, c, sigma = features
    loss = bnnbench.losses.bayesian_feature_loss(f, y, c, torch.ones_like(sigma))
    assert float(loss) == pytest.approx(2 * float((f - c[y]).square().sum()))
