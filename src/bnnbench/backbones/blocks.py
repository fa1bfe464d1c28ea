"""Residual blocks: structure, apart from the method."""

from __future__ import annotations

from torch import Tensor, nn

from bnnbench.backbones.structure import Structure

# Before a sign, a learned slope changes nothing: in pre-activation blocks these follow it.
BEFORE_CONVOLUTION = ("relu", "hardtanh")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm, with identity shortcuts.

    Order: quantize - conv - norm - add - nonlinearity (Bi-Real Net, AdaBin, IR-Net). With
    ``shortcut=block`` the add after the first convolution falls away.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, structure: Structure) -> None:
        super().__init__()
        self.per_conv = structure.shortcut == "conv"
        self.conv1 = structure.conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = structure.act(channels)
        self.conv2 = structure.conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = structure.act(channels)
        self.downsample = structure.shortcut_layer(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H / stride, W / stride)."""
        shortcut = self.downsample(x)
        out = self.bn1(self.conv1(x))
        if self.per_conv:
            shortcut = out = self.act1(out + shortcut)
        else:
            out = self.act1(out)
        return self.act2(self.bn2(self.conv2(out)) + shortcut)


class PreActivationBlock(nn.Module):
    """Batch norm and a 3x3 convolution, twice, with identity shortcuts around them.

    Order: norm - nonlinearity - quantize - conv - add (wide ResNets, arXiv 1605.07146); learned
    nonlinearities stand between convolution and add (BONN, arXiv 1908.06314, Fig. 2). Where the
    shape changes, the shortcut starts behind the first norm and nonlinearity. With
    ``shortcut=conv`` there is an add after the first convolution as well.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, dropout: float, structure: Structure
    ) -> None:
        super().__init__()
        self.per_conv = structure.shortcut == "conv"
        before = structure.nonlinearity in BEFORE_CONVOLUTION
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pre1 = structure.act(in_channels) if before else nn.Identity()
        self.conv1 = structure.conv3x3(in_channels, channels, stride)
        self.act1 = nn.Identity() if before else structure.act(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.pre2 = structure.act(channels) if before else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = structure.conv3x3(channels, channels)
        self.act2 = nn.Identity() if before else structure.act(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = structure.shortcut_layer(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H / stride, W / stride)."""
        normed = self.pre1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(normed)
        out = self.act1(self.conv1(normed))
        if self.per_conv:
            shortcut = out = out + shortcut
        out = self.conv2(self.dropout(self.pre2(self.bn2(out))))
        return self.act2(out) + shortcut
