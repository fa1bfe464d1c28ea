"""BayesBiNN's relaxed samples against their definition (arXiv 2002.10778)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnnbench.quantizers.bayesbinn import BayesBiNNWeight


def sample(side: BayesBiNNWeight, lam: Tensor) -> tuple[Tensor, Tensor]:
    """A sample and the noise it was made of."""
    torch.manual_seed(0)
    u = torch.rand_like(lam)
    torch.manual_seed(0)
    return side.train()(lam), 0.5 * torch.log(u / (1 - u))


def test_training_draws_relaxed_signs(weight: Tensor) -> None:
    value, noise = sample(BayesBiNNWeight(weight.shape, temperature=0.7), weight)
    torch.testing.assert_close(value, torch.tanh((weight + noise) / 0.7))


def test_a_cold_sample_is_a_sign(weight: Tensor) -> None:
    value, noise = sample(BayesBiNNWeight(weight.shape, temperature=1e-10), weight)
    assert torch.equal(value, torch.sign(weight + noise))


def test_evaluation_takes_the_most_probable_sign(weight: Tensor) -> None:
    value = BayesBiNNWeight(weight.shape, temperature=1e-10).eval()(weight)
    assert torch.equal(value, torch.where(weight >= 0, 1.0, -1.0).double())


def test_samples_have_the_posterior_s_mean() -> None:
    """P(w = 1) is the logistic function of 2 lam, so that the mean is tanh(lam)."""
    lam = torch.full((200_000,), 0.4, dtype=torch.float64)
    value, _ = sample(BayesBiNNWeight((200_000, 1), temperature=1e-10), lam)
    assert float(value.mean()) == pytest.approx(float(torch.tanh(lam[0])), abs=0.01)


@pytest.mark.parametrize("temperature", [1e-10, 0.5])
def test_gradient_with_the_authors_guards(weight: Tensor, upstream, temperature: float) -> None:
    side, g = BayesBiNNWeight(weight.shape, temperature), upstream(weight)
    leaf = weight.clone().requires_grad_()
    value, _ = sample(side, leaf)
    value.backward(g)
    w = value.detach()
    scale = (1 - w**2 + 1e-10) / (temperature * (1 - torch.tanh(weight) ** 2 + 1e-10))
    torch.testing.assert_close(leaf.grad, scale * g)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"quantizer\.temperature=0"):
        BayesBiNNWeight((1, 1), temperature=0)
