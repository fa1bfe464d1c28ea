"""Thresholds of integers: what stands between a layer's sums and the next sign, evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def integer_thresholds(
    evaluate: Callable[[Tensor], Tensor], products: int, channels: int
) -> tuple[Tensor, Tensor] | None:
    """Threshold and flip of a ``Binarizer`` over sums that decides as ``evaluate`` does.

    Args:
        evaluate: from sums (M, channels, 1, 1), float32, to whether the next code is +1; the
            graph's own arithmetic, so that its rounding is kept for every sum.
        products: of one sum, which lies between ``-products`` and ``products``.
        channels: of the sums.

    Returns:
        Both (channels,), or None where a channel changes more than once.
    """
    sums = torch.arange(-products, products + 1, dtype=torch.float32).view(-1, 1, 1, 1)
    high = evaluate(sums.expand(-1, channels, 1, 1).contiguous()).reshape(len(sums), channels)
    changes = high[1:] != high[:-1]
    if bool((changes.sum(0) > 1).any()):
        return None
    first = torch.where(changes.any(0), sums.flatten()[1:][changes.int().argmax(0)], -torch.inf)
    flip = ~high[-1]  # falling, or never +1: turned round, so that all above is -1
    return first, flip
