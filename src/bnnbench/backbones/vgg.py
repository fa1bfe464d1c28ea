"""VGG-small (the CIFAR network of LQ-Nets, IR-Net, RBNN, AdaBin and others).

128 - 128 P - 256 - 256 P - 512 - 512 P - classifier, all convolutions 3x3, P a 2x2 max pool before
the batch norm; stem and classifier in full precision by default.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.blocks import Structure
from bnnbench.layers import QuantizerSpec

WIDTHS = (128, 128, 256, 256, 512, 512)  # a pool after every second


class VGGSmall(Backbone):
    """Plain network of six convolutions; the classifier sees the last map flattened."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: int, structure: Structure
    ) -> None:
        side = image_size // 8  # three pools
        super().__init__(WIDTHS[-1] * side * side, num_classes, structure)
        self.features = nn.Sequential()
        channels = in_channels
        for index, width in enumerate(WIDTHS, start=1):
            conv = structure.stem3x3 if index == 1 else structure.conv3x3
            self.features.add_module(f"conv{index}", conv(channels, width))
            if index % 2 == 0:
                self.features.add_module(f"pool{index}", nn.MaxPool2d(2))
            self.features.add_module(f"bn{index}", nn.BatchNorm2d(width))
            self.features.add_module(f"act{index}", structure.act(width))
            channels = width
        initialize(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, S, S) to (N, 512, S // 8, S // 8)."""
        return self.features(x)

    def pool(self, features: Tensor) -> Tensor:
        """All positions of the last map, flattened."""
        return features.flatten(1)


def vgg_small(quantizer: QuantizerSpec, **options: Any) -> VGGSmall:
    """VGG-small; options: the keys of conf/backbone/vgg_small.yaml."""
    check_image_size(options["image_size"], "vgg_small")
    classes, channels = options.pop("num_classes"), options.pop("in_channels")
    size = options.pop("image_size")
    return VGGSmall(classes, channels, size, Structure(quantizer, **options))
