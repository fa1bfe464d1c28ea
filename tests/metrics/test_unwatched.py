"""The mean of training losses is torchmetrics' to the last bit, and looks at nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics import MeanMetric

from bnnbench.metrics.unwatched import UnwatchedMean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("weights", [[128] * 40, [128] * 39 + [17]])
def test_it_is_torchmetrics_mean(weights: list[int], dtype: torch.dtype) -> None:
    own, theirs = UnwatchedMean(), MeanMetric()
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).exp().to(dtype)
    for value, weight in zip(values, weights, strict=True):
        own.update(value, weight=weight)
        theirs.update(value, weight=weight)
    assert torch.equal(own.compute(), theirs.compute())
    assert torch.equal(own.weight, theirs.weight)
    own.reset()
    own.update(values[3], weight=2)
    assert float(own.compute()) == pytest.approx(float(values[3]))


def test_a_value_that_is_no_number_stays_in_the_mean() -> None:
    mean = UnwatchedMean()
    for value in (1.0, math.nan, 2.0):
        mean.update(torch.tensor(value))
    assert mean.compute().isnan()
