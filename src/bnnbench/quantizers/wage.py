"""WAGE: training and inference with integers (Wu et al., ICLR 2018, arXiv 1802.04680).

Weights, activations, gradients and errors lie on grids of k bits, ``S = 2^(k-1)``:
``Q(x) = round(S x) / S``, ``C(x) = clip(x, +-(1 - 1/S))``, ``Shift(x) = 2^round(log2 x)``.

W, weights: ``Q(C(w)) / scale``, straight-through; scale is a power of two, of the layer and fixed.
A, activations: ``Q(C(x))``, straight-through but for the clip. E, the gradient at each activation:
``Q(C(e / Shift(max|e|)))``. G, the update: ``optim/wage.py``; stored weights are clipped after it.

From the authors' code (boluoweifenda/WAGE). There is no batch norm: scales and the start of the
weights, uniform over at least +-1.5/S, take its place; all layers are quantized and have no bias.
Ours: the image keeps the data set's own normalisation and is not rounded once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Side
from bnnbench.quantizers.surrogate import map_gradient, straight_through


def _checked(bits: int, name: str) -> int:
    if not 2 <= bits <= 15:
        raise ValueError(f"quantizer.{name}={bits}: choose 2 to 15 bits")
    return bits


def limit(bits: int) -> float:
    """``1 - 1/S``, the largest value of k bits."""
    return 1 - 2.0 ** (1 - bits)


def on_grid(x: Tensor, bits: int) -> Tensor:
    """``Q(C(x))``: the nearest of the ``2^k - 1`` values between ``+-(1 - 1/S)``."""
    steps = 2.0 ** (bits - 1)
    return x.clamp(-limit(bits), limit(bits)).mul_(steps).round_().div_(steps)


def normalised(x: Tensor) -> Tensor:
    """``x / Shift(max|x|)``; zeros stay."""
    largest = x.abs().amax()
    shift = torch.exp2(torch.log2(largest).round())
    return x / torch.where(largest > 0, shift, 1.0)


def _rounded(error: Tensor, bits: int) -> Tensor:
    return on_grid(normalised(error), bits)


def quantized_error(x: Tensor, bits: int) -> Tensor:
    """``x``, whose gradient is normalised and rounded to ``bits``; at 32 it stays as it is."""
    return map_gradient(x, _rounded, bits)


class WAGEWeight(Side):
    """k-bit weights over a power of two. ``gradient_bits`` are those of the update."""

    optimizer = "wage"

    def __init__(self, shape: Sequence[int], bits: int, gradient_bits: int) -> None:
        super().__init__()
        self.bits = _checked(bits, "weight_bits")
        self.gradient_bits = _checked(gradient_bits, "gradient_bits")
        msra = math.sqrt(3 / math.prod(shape[1:]))  # uniform with variance 1 / fan-in
        least = 1.5 / 2 ** (bits - 1)
        self.start_limit = max(msra, least)
        self.scale = max(2.0 ** round(math.log2(least / msra)), 1.0)

    def forward(self, weight: Tensor) -> Tensor:
        """Quantized weights, same shape as ``weight``."""
        return straight_through(weight, on_grid(weight.detach(), self.bits) / self.scale)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Uniform over the start's limit, on the grid of ``bits``."""
        weight.uniform_(-self.start_limit, self.start_limit)
        weight.copy_(on_grid(weight, self.bits))

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Stored weights do not leave the range of their codes."""
        weight.clamp_(-limit(self.bits), limit(self.bits))


class WAGEActivation(Side):
    """k-bit activations, and the errors that come back through them."""

    def __init__(self, channels: int, bits: int, error_bits: int) -> None:
        super().__init__()
        self.bits = _checked(bits, "activation_bits")
        self.error_bits = _checked(error_bits, "error_bits")

    def forward(self, x: Tensor) -> Tensor:
        """Quantized activations, same shape as ``x``."""
        clipped = quantized_error(x, self.error_bits).clamp(-limit(self.bits), limit(self.bits))
        return straight_through(clipped, on_grid(clipped.detach(), self.bits))
