"""Real-to-Binary (Martinez et al., ICLR 2020, arXiv 2003.11535).

Weights and activations are BinaryNet's: signs, clipped straight-through, latent weights in [-1, 1].
The convolution's output is multiplied by a gate of its real input x,
``sigmoid(W2 relu(W1 GAP(x)))``, with an eighth of the channels in between. ResNets have
pre-activation half-blocks: norm - sign - conv - gate - PReLU - add. ``recipe=native`` trains in
four stages. There is no code of the authors; details are from larq/zoo, which warns that its own
settings are not exactly theirs. Ours: where the shape changes, the shortcut starts behind the first
norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import OutputOp, Side


class Gate(OutputOp):
    """``out * sigmoid(W2 relu(W1 GAP(input)))``, a factor for each image and channel."""

    def __init__(self, layer: nn.Conv2d, reduction: int) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"quantizer.reduction={reduction} must be 1 or more")
        hidden = max(layer.in_channels // reduction, 1)
        self.squeeze = nn.Linear(layer.in_channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, layer.out_channels, bias=False)

    def forward(self, out: Tensor, input: Tensor) -> Tensor:
        """``out`` (N, O, H', W') gated by ``input`` (N, C, H, W)."""
        pooled = input.mean(dim=(2, 3))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))
        return out * gate[:, :, None, None]


class TanhActivation(Side):
    """``tanh(x)``: the real activations of the second stage."""

    bits = 32

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Values in (-1, 1), same shape as ``x``."""
        return torch.tanh(x)
