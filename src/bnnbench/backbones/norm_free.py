"""Residual networks without batch norms, as A&B BNN builds them (arXiv 2403.03739, after NFNets).

Each convolution stands in ``alpha * conv(x / sqrt(expected variance)) + shortcut``, alpha 0.25. The
expected variance starts at 1 in each stage and grows by alpha^2 with each convolution from the
second on; a stage's first convolution still sees that of the stage before (the authors' code).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from bnnbench.backbones.structure import Structure

ALPHA = 0.25


def expected_variances(depths: Sequence[int]) -> Iterator[tuple[float, float]]:
    """The variances that the inputs of both convolutions are expected to have, block by block."""
    variance = 1.0
    for depth in depths:
        inputs = [variance] + [1 + i * ALPHA**2 for i in range(2 * depth - 1)]
        variance = 1 + (2 * depth - 1) * ALPHA**2
        yield from zip(inputs[::2], inputs[1::2], strict=True)


class NormFreeBlock(nn.Module):
    """Two 3x3 convolutions without norms, a shortcut around each.

    ``variances`` are those expected of the inputs of the two.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        structure: Structure,
        variances: tuple[float, float],
    ) -> None:
        super().__init__()
        self.betas = [variance**-0.5 for variance in variances]
        self.conv1 = structure.conv3x3(in_channels, channels, stride)
        self.act1 = structure.act(channels)
        self.conv2 = structure.conv3x3(channels, channels)
        self.act2 = structure.act(channels)
        self.downsample = structure.shortcut_layer(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H / stride, W / stride)."""
        out = self.act1(ALPHA * self.conv1(self.betas[0] * x) + self.downsample(x))
        return self.act2(ALPHA * self.conv2(self.betas[1] * out) + out)
