"""ReActNet's own network (Liu et al., ECCV 2020, arXiv 2003.03488, Fig. 5), after MobileNet.

Code: liuzechun/ReActNet, mobilenet/ ("ReActNet-A"). A 3x3 stem with batch norm and nothing behind
it, and thirteen blocks, each a 3x3 convolution that keeps the width and a 1x1 convolution, both
with a shortcut, a batch norm and the nonlinearity behind the sum. A block that doubles the width
has the shortcut twice, one beside the other: the authors' two 1x1 convolutions over one binarized
map, side by side, are one of twice the filters here, which is the same function. Where the map
halves, the shortcut of the 3x3 convolution is an average pool.

Changed: images of up to 48 pixels meet a stem of stride 1, so that CIFAR's maps go from 32 to 2
pixels; weights start as all of this suite do (the authors draw them from [0, 0.001]); pools of maps
of odd sides count what is there. ``width`` scales all widths; the authors' network has 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.backbones.stems import LARGEST
from bnnbench.backbones.structure import Structure
from bnnbench.layers import QuantizerSpec

STEM = 32
WIDTHS = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)  # behind each block
LAST_STAGE = 2  # blocks of the last map size


class ReActBlock(nn.Module):
    """A 3x3 convolution and a 1x1 convolution of the same or twice the width."""

    def __init__(self, in_channels: int, channels: int, stride: int, structure: Structure) -> None:
        super().__init__()
        self.doubles = channels == 2 * in_channels
        self.conv1 = structure.conv3x3(in_channels, in_channels, stride)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = structure.act(in_channels)
        self.pool = nn.Identity()
        if stride > 1:
            self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        self.conv2 = structure.conv(in_channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = structure.act(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.act1(self.bn1(self.conv1(x)) + self.pool(x))
        shortcut = torch.cat([out, out], dim=1) if self.doubles else out
        return self.act2(self.bn2(self.conv2(out)) + shortcut)


class ReActNetA(Backbone):
    """Stem, thirteen blocks, average pool, classifier.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the image.
        image_size: pixels; the stem halves images of more than 48.
        width: factor of all widths; a multiple of 1/32.
        structure: method and structure switches; the shortcuts are the network's own.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        width: float,
        structure: Structure,
    ) -> None:
        if width <= 0 or (width * STEM) % 1:
            raise ValueError(
                f"backbone.width={width}: the stem's {STEM} channels times it have to be a whole "
                "number; choose 1.0, 0.5 or 0.25, for instance"
            )
        stem, *widths = (round(width * channels) for channels in (STEM, *WIDTHS))
        super().__init__(widths[-1], num_classes, structure)
        small = image_size <= LARGEST["small"]  # pyright: ignore[reportOperatorIssue]
        self.conv1 = structure.stem("small" if small else "half", in_channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.act1 = structure.stem_act(stem)
        self.blocks, channels = nn.Sequential(), stem
        for index, block in enumerate(widths):
            halves = block > channels and index > 0  # the first block doubles the width alone
            self.blocks.append(ReActBlock(channels, block, 2 if halves else 1, structure))
            channels = block
        initialize(self, structure)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, 1024 width, h, w)."""
        return self.blocks(self.act1(self.bn1(self.conv1(x))))

    def hint_modules(self) -> list[nn.Module]:
        """The maps before and after the blocks of the last map size."""
        return [self.blocks[-1 - LAST_STAGE], self.blocks[-1]]


def reactnet_a(quantizer: QuantizerSpec, **options: Any) -> ReActNetA:
    """ReActNet-A; options: the keys of conf/backbone/reactnet_a.yaml."""
    check_image_size(options["image_size"], "reactnet_a", high=None)
    keys = ("num_classes", "in_channels", "image_size", "width")
    shape = {key: options.pop(key) for key in keys}
    return ReActNetA(**shape, structure=Structure(quantizer, **options))
