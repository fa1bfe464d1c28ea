"""The learned scale behind a convolution, of RBNN, ReCU, SiMaN, IE-Net and BiPer: an output op.

Linear layers have none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import OutputOp

STARTS = ("random", "weight")


class ChannelScale(OutputOp):
    """One factor for each output channel.

    Args:
        layer: the convolution.
        start: ``random``, U(0, 1), or ``weight``, the E|w| of each filter as the layer was built.
    """

    def __init__(self, layer: nn.Conv2d, start: str) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"quantizer.output.start={start!r}: choose one of {STARTS}")
        weight = layer.weight.detach()
        scale = torch.rand(len(weight)) if start == "random" else weight.abs().mean(dim=(1, 2, 3))
        self.scale = nn.Parameter(scale)

    def forward(self, out: Tensor, x: Tensor) -> Tensor:
        """``out`` (N, O, H', W') times the factors."""
        return out * self.scale.view(-1, 1, 1)
