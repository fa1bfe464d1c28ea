"""DoReFa-Net's quantized gradients (arXiv 1606.06160, Eq. 12): an output op of every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnbench.quantizers.dorefa import quantize
from bnnbench.quantizers.straight import map_gradient


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


class DoReFaGradient(nn.Module):
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
