"""The three ways in which methods standardise a filter or a sample; they round differently.

All work over every axis but the first. They differ in the standard deviation that they divide by:
``unit_std`` by an unbiased one plus 1e-12 (IR-Net, RBNN), ``unit_spread`` by ``spread``, which has
batch norm's 1e-5 under the root (ReCU, SiMaN, IE-Net, OvSW), ``unit_norm`` by a biased one plus
1e-5 and by the root of the fan-in (A&B BNN).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnnbench.quantizers.base import per_filter

EPS = 1e-12  # a constant filter has no deviation: keeps its standardised value finite


def unit_std(weight: Tensor) -> Tensor:
    """Each filter with zero mean and unit (unbiased) standard deviation."""
    axes = per_filter(weight)
    centred = weight - weight.mean(dim=axes, keepdim=True)
    return centred / (centred.std(dim=axes, keepdim=True) + EPS)


def spread(x: Tensor) -> Tensor:
    """``sqrt(var + 1e-5)``, unbiased, over all axes but the first, which keeps its rank."""
    return (x.var(dim=per_filter(x), keepdim=True) + 1e-5).sqrt()


def unit_spread(x: Tensor) -> Tensor:
    """Each filter, or sample, with zero mean, over its ``spread``."""
    centred = x - x.mean(dim=per_filter(x), keepdim=True)
    return centred / spread(centred)


def unit_norm(weight: Tensor) -> Tensor:
    """Filters of mean 0 and squared sum 1, same shape (scaled weight standardisation)."""
    std, mean = torch.std_mean(weight, dim=per_filter(weight), correction=0, keepdim=True)
    return (weight - mean) / (std + 1e-5) * weight[0].numel() ** -0.5
