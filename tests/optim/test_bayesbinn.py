"""The BayesBiNN optimizer: its rule written out, and Adam for everything else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bnnbench.optim.bayesbinn import BayesBiNN

RATE, SIZE = 0.1, 50.0


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return tuple(  # pyright: ignore
        nn.Parameter(torch.randn(7, dtype=torch.float64, generator=generator)) for _ in range(2)
    )


def optimizer(lam: nn.Parameter, real: nn.Parameter, size: float = SIZE, prior: float = 0.0):
    latent = {"params": [lam], "latent": True, "effective_size": size}
    return BayesBiNN([latent, {"params": [real], "latent": False}], lr=RATE, prior=prior)


def gradient(step: int) -> Tensor:
    return torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(9 + step))


def test_latent_weights_follow_the_bayesian_learning_rule() -> None:
    lam, real = parameters()
    expected = lam.detach().clone()
    opt = optimizer(lam, real, prior=0.3)
    for step in range(3):
        lam.grad = gradient(step)
        opt.step()
        expected = (1 - RATE) * expected - RATE * (SIZE * gradient(step) - 0.3)
    torch.testing.assert_close(lam.detach(), expected)


def test_without_data_lam_decays_to_the_prior() -> None:
    lam, real = parameters()
    start = lam.detach().clone()
    opt = optimizer(lam, real, size=0.0, prior=1.0)
    for step in range(5):
        lam.grad = gradient(step)
        opt.step()
    torch.testing.assert_close(lam.detach(), 1 + (1 - RATE) ** 5 * (start - 1))


def test_all_other_parameters_are_adams() -> None:
    lam, real = parameters()
    twin = nn.Parameter(real.detach().clone())
    opt, adam = optimizer(lam, real), torch.optim.Adam([twin], lr=RATE)
    for step in range(3):
        real.grad, twin.grad, lam.grad = gradient(step), gradient(step), gradient(step)
        opt.step()
        adam.step()
    torch.testing.assert_close(real.detach(), twin.detach(), rtol=0, atol=0)


def test_state_survives_a_resume() -> None:
    lam, real = parameters()
    opt = optimizer(lam, real)
    for step in range(2):
        lam.grad, real.grad = gradient(step), gradient(step)
        opt.step()
    others = [nn.Parameter(p.detach().clone()) for p in (lam, real)]
    fresh = optimizer(*others)
    fresh.load_state_dict(copy.deepcopy(opt.state_dict()))
    for pair, one in (((lam, real), opt), (others, fresh)):
        for p in pair:
            p.grad = gradient(5)
        one.step()
    for a, b in zip((lam, real), others, strict=True):
        assert torch.equal(a, b)


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="effective_size=-1"):
        optimizer(*parameters(), size=-1)


def test_the_closure_is_evaluated_and_all_gradients_stay() -> None:
    lam, real = parameters()
    opt = optimizer(lam, real)
    before = lam.detach().clone()

    def closure() -> Tensor:
        lam.grad, real.grad = gradient(0), gradient(1)
        return torch.tensor(3.0)

    assert float(opt.step(closure)) == 3.0
    torch.testing.assert_close(lam.detach(), (1 - RATE) * before - RATE * SIZE * gradient(0))
    assert lam.grad is not None
    torch.testing.assert_close(lam.grad, gradient(0), rtol=0, atol=0)
