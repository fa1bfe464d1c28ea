"""Sum of squared errors, the loss of WAGE (arXiv 1802.04680)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.wage import quantized_error


class SumOfSquares(nn.Module):
    """``1/2 sum (y - z)^2`` of logits z and one-hot labels y, mean over samples.

    Args:
        error_bits: of the gradient that enters the network; 32: full precision. WAGE normalises it,
            so that for it sum and mean over samples are the same.
    """

    def __init__(self, error_bits: int) -> None:
        super().__init__()
        if not 2 <= error_bits <= 15 and error_bits != 32:
            raise ValueError(f"loss.error_bits={error_bits}: choose 2 to 15, or 32")
        self.error_bits = error_bits

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) and labels (N,) to a scalar."""
        logits = quantized_error(logits, self.error_bits)
        targets = F.one_hot(labels, logits.shape[1])
        return (targets - logits).square().sum(dim=1).mean() / 2
