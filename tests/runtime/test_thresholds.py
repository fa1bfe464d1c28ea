"""Integer thresholds decide as the arithmetic that they replace, for every sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.thresholds import integer_thresholds


def test_every_attainable_sum_is_decided_as_the_batch_norm_does() -> None:
    torch.manual_seed(0)
    count, channels = 144, 200
    alpha, mean, weight, bias = (torch.randn(channels) for _ in range(4))
    weight[:5] = 0  # the sum does not matter: one sign for all
    variance = torch.rand(channels) * 100
    mean = mean * 10

    def reached(sums):
        y = sums * alpha.view(1, -1, 1, 1)
        return F.batch_norm(y, mean, variance, weight, bias) >= 0

    found = integer_thresholds(reached, count, channels)
    assert found is not None
    sums = torch.arange(-count, count + 1.0).view(-1, 1, 1, 1).expand(-1, channels, 1, 1)
    codes = Binarizer(*found).codes(sums)
    assert torch.equal(codes > 0, reached(sums))
    assert set(found[1].tolist()) == {False, True}
    assert set(codes[:, :5].mean(0).flatten().tolist()) == {-1.0, 1.0}


def test_what_changes_twice_has_no_threshold() -> None:
    assert integer_thresholds(lambda s: s.abs() < 3, 9, 2) is None
