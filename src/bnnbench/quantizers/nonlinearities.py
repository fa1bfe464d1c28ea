"""The nonlinearities of binary residual blocks, built as ``cls(channels)``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.surrogate import straight_through


class RPReLU(nn.Module):
    """``prelu(x - shift_in) + shift_out`` per channel (ReActNet, arXiv 2003.03488, Eq. 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W), same shape out."""
        shifted = x - self.shift_in.view(-1, 1, 1)
        return F.prelu(shifted, self.slope) + self.shift_out.view(-1, 1, 1)


class Maxout(nn.Module):
    """``positive * relu(x) - negative * relu(-x)`` per channel (AdaBin, arXiv 2208.08084)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.ones(channels))
        self.negative = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W), same shape out."""
        negative = self.negative.view(-1, 1, 1)
        return torch.addcmul(negative * x, self.positive.view(-1, 1, 1) - negative, F.relu(x))


class Hardtanh(nn.Hardtanh):
    """``clamp(x, -1, 1)``, as torch's, whose compiled gradient is computed from its output.

    The compiler would keep a boolean map of what is clipped, and stores such maps an element at a
    time: the full-precision step takes 1.6 times as long. The output is kept by the convolution
    behind it, and tells as much. Values and gradients are the same numbers.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input`` of any shape, same shape out; where ``inplace`` is set, eager, in its place."""
        if not (self.training and torch.compiler.is_compiling()):
            return super().forward(input)
        clipped = input.clamp(-1, 1)
        return straight_through(input, clipped, (1 - clipped.abs()).ceil())


NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "relu": lambda channels: nn.ReLU(inplace=True),
    "hardtanh": lambda channels: Hardtanh(inplace=True),
    "prelu": nn.PReLU,
    "rprelu": RPReLU,
    "maxout": Maxout,
}
