"""VGG-small (the CIFAR network of LQ-Nets, IR-Net, RBNN, AdaBin and others) and SSD's VGG-16.

VGG-small: 128 - 128 P - 256 - 256 P - 512 - 512 P - classifier, all convolutions 3x3, P a 2x2 max
pool before the batch norm; stem and classifier in full precision by default. VGG7 (WAGE) has a
fully connected layer of 1024 before the classifier.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.backbones.structure import NORMS, NormFreeStructure, Structure
from bnnbench.layers import QuantizerSpec

S = TypeVar("S", bound=Structure)
WIDTHS = (128, 128, 256, 256, 512, 512)  # a pool after every second


class VGGSmall(Backbone):
    """Plain network of six convolutions; the classifier sees the last map flattened.

    With ``hidden`` a fully connected layer of that width, quantized, stands between the two;
    ``width`` is a factor of the convolutions' widths.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        structure: Structure,
        hidden: int | None = None,
        width: float = 1.0,
    ) -> None:
        if width <= 0 or (width * WIDTHS[0]) % 1:
            raise ValueError(
                f"backbone.width={width}: the stem's {WIDTHS[0]} channels times it have to be a "
                "whole number; choose 1.0, 0.5 or 0.25, for instance"
            )
        widths = [round(width * channels) for channels in WIDTHS]
        flat = widths[-1] * (image_size // 8) ** 2  # three pools
        super().__init__(hidden or flat, num_classes, structure)
        self.features = nn.Sequential()
        channels = in_channels
        for index, out_channels in enumerate(widths, start=1):
            conv = structure.stem3x3 if index == 1 else structure.conv3x3
            self.features.add_module(f"conv{index}", conv(channels, out_channels))
            if index % 2 == 0:
                self.features.add_module(f"pool{index}", nn.MaxPool2d(2))
            self.features.add_module(f"bn{index}", NORMS[structure.norm](out_channels))
            self.features.add_module(f"act{index}", structure.act(out_channels))
            channels = out_channels
        if hidden is not None:
            self.hidden = nn.Sequential()
            self.hidden.add_module("fc", structure.quantizer.linear(flat, hidden, bias=False))
            self.hidden.add_module("map", nn.Unflatten(1, (hidden, 1, 1)))
            self.hidden.add_module("bn", NORMS[structure.norm](hidden))
            self.hidden.add_module("act", structure.act(hidden))
            self.hidden.add_module("flat", nn.Flatten())
        initialize(self, structure)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, S, S) to (N, 512, S // 8, S // 8)."""
        return self.features(x)

    def pool(self, features: Tensor) -> Tensor:
        """All positions of the last map, flattened, or the hidden layer's view of them."""
        flat = features.flatten(1)
        return self.hidden(flat) if hasattr(self, "hidden") else flat

    def hint_modules(self) -> list[nn.Module]:
        """The maps before and after the last two convolutions."""
        return [self.features.act4, self.features.act6]  # pyright: ignore[reportReturnType]


def vgg_small(quantizer: QuantizerSpec, **options: Any) -> VGGSmall:
    """VGG-small; options: the keys of conf/backbone/vgg_small.yaml."""
    check_image_size(options["image_size"], "vgg_small")
    classes, channels = options.pop("num_classes"), options.pop("in_channels")
    size, width = options.pop("image_size"), options.pop("width", 1.0)  # files of before have none
    return VGGSmall(classes, channels, size, Structure(quantizer, **options), width=width)


def vgg7(quantizer: QuantizerSpec, **options: Any) -> VGGSmall:
    """VGG7; options: the keys of conf/backbone/vgg7.yaml."""
    check_image_size(options["image_size"], "vgg7")
    keys = ("num_classes", "in_channels", "image_size", "hidden")
    shape = {key: options.pop(key) for key in keys}
    return VGGSmall(**shape, structure=NormFreeStructure(quantizer, **options))


class ConvUnit(nn.Module):
    """A binarized 3x3 convolution with batch norm and nonlinearity, and perhaps a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, structure: Structure) -> None:
        super().__init__()
        self.conv = structure.conv3x3(in_channels, channels, stride)
        self.bn = nn.BatchNorm2d(channels)
        self.act = structure.act(channels)
        self.downsample: nn.Module | None = None
        if structure.shortcut is not None:
            self.downsample = structure.shortcut_layer(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.bn(self.conv(x))
        return self.act(out if self.downsample is None else out + self.downsample(x))


class VGG16(Backbone):
    """SSD's VGG-16 (arXiv 1512.02325): thirteen 3x3 convolutions, a dilated conv6 and a 1x1 conv7.

    Without shortcuts, max pools stand between the stages. With them, a convolution of stride 2
    takes a pool's place (BiDet's released code), one more a stage. Batch norm everywhere. As a
    classifier it averages conv7 over all positions, to pre-train an SSD's body.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the image.
        structure: ``shortcut`` conv or None, and the other switches.
        conv7: ``fp32`` or ``binary``.
    """

    def __init__(
        self, num_classes: int, in_channels: int, structure: Structure, conv7: str
    ) -> None:
        super().__init__(1024, num_classes, structure)
        if conv7 not in ("fp32", "binary"):
            raise ValueError(f"backbone.conv7={conv7!r}: choose one of ('fp32', 'binary')")
        self.conv1 = structure.stem3x3(in_channels, 64)
        self.bn1, self.act1 = nn.BatchNorm2d(64), structure.act(64)
        self.stages, channels = nn.ModuleList([nn.Sequential(ConvUnit(64, 64, 1, structure))]), 64
        for width, depth in ((128, 2), (256, 3), (512, 3), (512, 3)):
            stage = nn.Sequential(self._down(channels, width, structure))
            channels = channels if structure.shortcut is None else width
            for _ in range(depth):
                stage.append(ConvUnit(channels, width, 1, structure))
                channels = width
            self.stages.append(stage)
        self.pool5 = nn.MaxPool2d(3, 1, 1)
        self.conv6 = structure.conv(channels, 1024, 3, padding=6, dilation=6)
        self.bn6, self.act6 = nn.BatchNorm2d(1024), structure.act(1024)
        conv = structure.conv if conv7 == "binary" else partial(nn.Conv2d, bias=False)
        self.conv7 = conv(1024, 1024, 1)
        self.bn7, self.act7 = nn.BatchNorm2d(1024), structure.act(1024)
        initialize(self, structure)

    @staticmethod
    def _down(channels: int, width: int, structure: Structure) -> nn.Module:
        if structure.shortcut is None:
            return nn.MaxPool2d(2, ceil_mode=True)
        return ConvUnit(channels, width, 2, structure)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, S, S) to conv7, (N, 1024, S/16, S/16)."""
        return self.forward_maps(x)[-1]

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, S, S) to conv4_3 (N, 512, S/8, S/8) and conv7 (N, 1024, S/16, S/16)."""
        x = self.act1(self.bn1(self.conv1(x)))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.act6(self.bn6(self.conv6(self.pool5(x))))
        return [maps[3], self.act7(self.bn7(self.conv7(x)))]


def vgg16_structure(kind: type[S], quantizer: QuantizerSpec, options: dict[str, Any]) -> S:
    """The structure of a VGG-16, whose ``shortcut`` is ``none`` or ``conv``."""
    shortcut = options.pop("shortcut")
    if shortcut not in ("none", "conv"):
        raise ValueError(f"backbone.shortcut={shortcut!r}: choose none (plain VGG-16) or conv")
    return kind(quantizer, shortcut=None if shortcut == "none" else shortcut, **options)


def vgg16(quantizer: QuantizerSpec, **options: Any) -> VGG16:
    """VGG-16 as a classifier; options: the keys of conf/backbone/vgg16.yaml."""
    check_image_size(options.pop("image_size"), "vgg16", high=None)
    classes, channels = options.pop("num_classes"), options.pop("in_channels")
    conv7 = options.pop("conv7")
    return VGG16(classes, channels, vgg16_structure(Structure, quantizer, options), conv7)
