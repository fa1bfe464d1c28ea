"""XNOR-Net++ (Bulat and Tzimiropoulos, BMVC 2019, arXiv 1909.13863).

Binary weights and activations without a scale, as in BNN; the output of the convolution is
multiplied by a learned Gamma of its shape, the outer product of one vector each over channels, rows
and columns (the paper's fourth case, its best), learned by back-propagation, initially 1. No code
of the authors; the paper was read as abstract, the form of Gamma in other people's implementations:
htqin/BiBench, larq/zoo. Changed: the vectors of rows and columns have ``map_size`` elements, of
which a map of H x W uses the first H and W, so that a checkpoint belongs to its ``map_size``.
Linear layers have no Gamma; sign(0) = +1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import OutputOp


class OutputScale(OutputOp):
    """Gamma: the outer product of three learned vectors."""

    def __init__(self, layer: nn.Conv2d, map_size: int) -> None:
        super().__init__()
        if map_size < 1:
            raise ValueError(f"quantizer.map_size={map_size} must be 1 or more")
        self.channels = nn.Parameter(torch.ones(layer.out_channels, 1, 1))
        self.rows = nn.Parameter(torch.ones(map_size, 1))
        self.columns = nn.Parameter(torch.ones(map_size))

    def forward(self, out: Tensor, x: Tensor) -> Tensor:
        """``out`` (N, O, H, W) scaled; H and W up to ``map_size``."""
        height, width = out.shape[-2:]
        if max(height, width) > len(self.columns):
            raise ValueError(
                f"quantizer.map_size={len(self.columns)} is too small for a map of {height} x "
                f"{width}; set it to {max(height, width)}"
            )
        return out * (self.channels * self.rows[:height] * self.columns[:width])
