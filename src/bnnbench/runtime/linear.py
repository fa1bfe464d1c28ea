"""A 1-bit linear layer: a convolution of 1x1 maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from bnnbench.runtime.convolution import PackedConv2d


class PackedLinear(nn.Module):
    """``linear`` over 1-bit activations and weights; buffers only, evaluation only.

    ``shape`` is (out, in); the other arguments are those of ``PackedConv2d``.
    """

    def __init__(self, bits: Tensor, shape: Sequence[int], **options: Any) -> None:
        super().__init__()
        out, width = shape
        self.convolution = PackedConv2d(bits, (out, width, 1, 1), **options)

    @property
    def path(self) -> str:
        """Where the layer is computed: ``kernel: ...`` or ``float: ...`` and why."""
        return self.convolution.path

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., in) float32 to (..., out)."""
        y = self.convolution(x.reshape(-1, x.shape[-1], 1, 1))
        return y.reshape(*x.shape[:-1], y.shape[1])
