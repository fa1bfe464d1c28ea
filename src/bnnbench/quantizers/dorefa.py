"""DoReFa-Net (Zhou et al., 2016, arXiv 1606.06160); code tensorpack, examples/DoReFa-Net.

k-bit weights and activations. Weights, k = 1: ``sign(w) * E|w|`` with one scale per layer and the
identity as gradient (Eqs. 6-7); k > 1: ``2 q_k(tanh(w) / (2 max|tanh w|) + 1/2) - 1`` (Eq. 9).
Activations ``q_k(clip(x, 0, 1))`` (Eq. 11): at 1 bit the values are {0, 1}.
``q_k(r) = round((2^k - 1) r) / (2^k - 1)``, straight-through (Eq. 5). 32 bits: unchanged.
Gradients of each layer's output are quantized with noise (Eq. 12), at 32 bits not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, OutputOp, Side, scaled_sign
from bnnbench.quantizers.surrogate import clip, identity, map_gradient, round_ste, sign_ste


def quantize(x: Tensor, bits: int) -> Tensor:
    """``q_k``: ``x`` in [0, 1] rounded to ``2^bits`` levels, straight-through (Eq. 5)."""
    levels = 2**bits - 1
    return round_ste(x * levels) / levels


def _checked(bits: int, name: str) -> int:
    if bits not in (*range(1, 9), 32):
        raise ValueError(f"quantizer.{name}={bits}: choose 1 to 8 bits, or 32 for full precision")
    return bits


class DoReFaWeight(Side):
    """k-bit weights in [-1, 1], or one-scale binary weights at k = 1."""

    def __init__(self, shape: Sequence[int], bits: int) -> None:
        super().__init__()
        self.bits = _checked(bits, "weight_bits")

    def forward(self, weight: Tensor) -> Tensor:
        """Quantized weights, same shape as ``weight``."""
        if self.bits == 32:
            return weight
        if self.bits == 1:
            return sign_ste(weight, identity, scale=weight.detach().abs().mean())
        tanh = torch.tanh(weight)
        return 2 * quantize(tanh / (2 * tanh.abs().max()) + 0.5, self.bits) - 1

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, x.abs().mean()) if self.bits == 1 else super().decompose(x)


class DoReFaActivation(Side):
    """k-bit activations in [0, 1]."""

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.bits = _checked(bits, "activation_bits")

    def forward(self, x: Tensor) -> Tensor:
        """Quantized activations, same shape as ``x``; the gradient is that of the clip."""
        if self.bits == 32:
            return x
        if self.bits == 1:  # the window of sign(2x - 1) is 0 < x < 1: the clip's own
            return sign_ste(2 * x - 1, clip).mul(0.5).add(0.5)
        return quantize(x.clamp(0, 1), self.bits)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(2 * x - 1, 0.5, 0.5) if self.bits == 1 else super().decompose(x)


def _rounded(grad: Tensor, bits: int) -> Tensor:
    exact = grad.float() if grad.dtype in (torch.bfloat16, torch.float16) else grad
    noise = torch.rand_like(exact) - 0.5  # in half precision the rounding would be biased
    return quantize_gradient(exact, bits, noise).to(grad.dtype)


def quantize_gradient(grad: Tensor, bits: int, noise: Tensor) -> Tensor:
    """``2 m (q_k(clip(g / 2m + 1/2 + u / (2^k - 1), 0, 1)) - 1/2)``; m is each sample's max|g|.

    Args:
        grad: (N, ...).
        bits: k.
        noise: u, uniform in [-1/2, 1/2], same shape.
    """
    largest = grad.abs().amax(dim=tuple(range(1, grad.dim())), keepdim=True)
    twice = 2 * largest.clamp(min=torch.finfo(grad.dtype).tiny)
    unit = (grad / twice + 0.5 + noise / (2**bits - 1)).clamp(0, 1)
    return twice * (quantize(unit, bits) - 0.5)


class DoReFaGradient(OutputOp):
    """The identity, whose gradient is quantized to ``bits``; at 32 it stays as it is."""

    for_linear = True

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: int) -> None:
        super().__init__()
        if bits not in (*range(1, 17), 32):
            raise ValueError(
                f"quantizer.gradient_bits={bits}: choose 1 to 16 bits, or 32 for full precision"
            )
        self.gradient_bits = bits

    def forward(self, out: Tensor, input: Tensor) -> Tensor:
        """``out`` itself."""
        return map_gradient(out, _rounded, self.gradient_bits)
