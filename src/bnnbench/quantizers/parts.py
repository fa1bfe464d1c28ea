"""Latent weights in parts that stay in a core's cache, for functions that pass over them often.

What a method does to a filter is many passes over few numbers. Over a wide layer at once each pass
waits for memory; over a few filters at a time it does not. The functions that work so compute, bit
for bit, what autograd makes of the plain formula: the same operations in the same order, filter by
filter. ``torch.compile`` fuses the plain formula by itself, and a GPU wants whole layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bnnbench.quantizers.base import per_filter

PART = 2**17  # weights at a time: half a MiB, and what is made of them beside


def in_parts(weight: Tensor) -> bool:
    """Whether ``weight`` is better passed over in parts: on a CPU, where nothing is compiled."""
    return weight.device.type == "cpu" and not torch.compiler.is_compiling()


def parts(weight: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few filters of ``weight`` at a time, with those of all others: views along the axis 0."""
    filters = max(1, PART // weight[0].numel())
    return zip(*(tensor.split(filters) for tensor in (weight, *others)), strict=True)


def column(weight: Tensor) -> Tensor:
    """Room for a number a filter, which broadcasts against ``weight``: (out, 1, ...)."""
    return weight.new_empty(len(weight), *(1,) * (weight.dim() - 1))


def moments(weight: Tensor, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Variance and mean of each filter of a part, in double precision, without gradient.

    ``torch.var_mean`` works in it as well, one weight after the other, at a fifth of the speed.
    """
    axes = per_filter(weight)
    double = weight.double()
    mean = double.mean(dim=axes, keepdim=True)
    squares = (double - mean).square_().sum(dim=axes, keepdim=True)
    return squares.div_(weight[0].numel() - correction), mean


def rounded_mean(weight: Tensor, variance: Tensor, mean: Tensor) -> Tensor:
    """The ``mean`` of ``moments``, in the weight's precision, as ``torch.var_mean`` rounds it.

    Its running mean is off by some 1e-16 deviations: where that may decide the last bit, of one
    filter in ten thousand, torch is asked.
    """
    margin = variance.sqrt().mul_(1e-14).add_(mean.abs(), alpha=1e-12)
    low, high = (mean - margin).to(weight.dtype), (mean + margin).to(weight.dtype)
    if not torch.equal(low, high):
        unclear = (low != high).flatten()
        axes = per_filter(weight)
        low[unclear] = torch.var_mean(weight[unclear], dim=axes, correction=0, keepdim=True)[1]
    return low


def to_signs(x: Tensor) -> Tensor:
    """``surrogate.sign`` in place."""
    return x.sign_().add_(0.5).sign_()
