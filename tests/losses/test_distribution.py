"""RAD's loss of one map against its terms written out per channel, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from bnnbench.losses.distribution import distribution_loss


def written_out(x: torch.Tensor) -> float:
    """The mean over channels of ``relu(min(2-m-s, 2+m-s))^2 + relu(s-4)^2 + relu(m^2-s^2)``."""
    total = 0.0
    for channel in x.transpose(0, 1).flatten(1).tolist():
        m = sum(channel) / len(channel)
        s = math.sqrt(sum((value - m) ** 2 for value in channel) / len(channel))
        total += max(min(2 - m - s, 2 + m - s), 0.0) ** 2
        total += max(s - 4, 0.0) ** 2 + max(m**2 - s**2, 0.0)
    return total / x.shape[1]


def maps(*shape: int) -> torch.Tensor:
    """Channels that are narrow, well spread, wide, and on either side of 0."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread, centre = torch.tensor([[0.3, 2.5, 6.0, 0.5, 0.5], [0.0, 0.0, 0.1, 3.0, -3.0]]).double()
    return x * spread.view(1, 5, *(1,) * (x.dim() - 2)) + centre.view(1, 5, *(1,) * (x.dim() - 2))


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (30, 5)])
def test_every_term(shape: tuple[int, ...]) -> None:
    x = maps(*shape)
    assert float(distribution_loss(x)) == pytest.approx(written_out(x), rel=1e-9)
    for channel in range(5):  # one map a channel: each has its own term
        alone = x[:, channel : channel + 1]
        assert float(distribution_loss(alone)) == pytest.approx(written_out(alone), rel=1e-9)
        assert (written_out(alone) > 0) == (channel != 1)


def test_gradient() -> None:
    assert torch.autograd.gradcheck(distribution_loss, maps(3, 5, 2, 2).requires_grad_())


def test_a_constant_map_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    distribution_loss(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_is_summed_in_single() -> None:
    x = maps(4, 5, 6, 7).bfloat16()
    assert distribution_loss(x).dtype == torch.float32
    assert float(distribution_loss(x)) == pytest.approx(written_out(x.double()), rel=1e-5)
