"""Kurtosis of latent weights (KURE, Shkolnik et al., NeurIPS 2020, arXiv 2002.07686)."""

from __future__ import annotations

from torch import Tensor


def kurtosis(rows: Tensor) -> Tensor:
    """``E[((w - mean) / std)^4]`` of each row, (R, K) to (R,).

    3 for a normal distribution, 1.8 for a uniform one, 1 (the least possible) for two equal values
    of either sign. The standard deviation is the population's. Constant rows have no kurtosis.
    """
    squared = (rows - rows.mean(dim=1, keepdim=True)).square()
    return squared.square().mean(dim=1) / squared.mean(dim=1).square()
