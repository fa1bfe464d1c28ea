"""SSD (Liu et al., ECCV 2016, arXiv 1512.02325) with a binarized body, on torchvision's parts.

``ssd300_vgg16``, ``ssd300_resnet18`` and ``ssd300_resnet34``: six maps of an image of 300 pixels,
38, 19, 10, 5, 3 and 1 wide, with 8732 default boxes of PASCAL VOC's scales (torchvision's own
factory has COCO's). Other square images get maps by the same rule. The structure follows the code
of BiDet (arXiv 2003.03961): stem, 1x1 shortcuts, conv7 and heads stay in full precision, conv6 and
the extra maps are binary; each of these is a switch. No quantizer follows a ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD, SSDScoringHead

from bnnbench.backbones.base import initialize
from bnnbench.backbones.resnet import ResNet
from bnnbench.backbones.structure import Structure
from bnnbench.backbones.vgg import VGG16, vgg16_structure
from bnnbench.layers import QuantizerSpec

LEAST_SIZE = 64  # pixels
ASPECT_RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
STEPS_300 = [8, 16, 32, 64, 100, 300]  # pixels a cell; other sizes divide the image evenly
UNPADDED = (3, 5)  # widths of maps that a 3x3 convolution without padding makes smaller
EXTRA_CHANNELS = ((256, 512), (128, 256), (128, 256), (128, 256))  # 1x1, then 3x3


@dataclass(frozen=True)
class SSDStructure(Structure):
    """What an SSD is built of besides the method; ``first`` and ``last`` are stem and heads.

    Attributes:
        projection: ``fp32`` or ``binary`` 1x1 convolutions of the shortcuts.
        extras: ``fp32`` or ``binary`` convolutions of the maps behind the body.
        conv7: ``fp32`` or ``binary`` 1x1 convolution at the end of the VGG-16 body; None elsewhere.
    """

    projection: str = "fp32"  # pyright: ignore[reportIncompatibleVariableOverride]
    extras: str = "binary"
    conv7: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("projection", "extras", "conv7"):
            if getattr(self, key) not in ("fp32", "binary", None):
                raise ValueError(
                    f"backbone.{key}={getattr(self, key)!r}: choose one of ('fp32', 'binary')"
                )


class HeadOutputs(NamedTuple):
    """What the heads say of every default box.

    Attributes:
        class_logits: (N, A, classes + 1), the first class is background.
        offsets: (N, A, 4), encoded against the default boxes.
    """

    class_logits: Tensor
    offsets: Tensor


class L2Norm(nn.Module):
    """Channels of each position scaled to length ``scale``, learned per channel (ParseNet)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.weight[:, None, None] * F.normalize(x)


class ExtraMap(nn.Module):
    """The next smaller map: 1x1 and 3x3 convolution, each with batch norm and nonlinearity."""

    def __init__(
        self, in_channels: int, middle: int, channels: int, side: int, structure: SSDStructure
    ) -> None:
        super().__init__()
        shape = {"stride": 2, "padding": 1} if side not in UNPADDED else {"stride": 1, "padding": 0}
        self.conv1 = self._conv(in_channels, middle, 1, structure)
        self.bn1 = nn.BatchNorm2d(middle)
        self.act1 = structure.act(middle)
        self.conv2 = self._conv(middle, channels, 3, structure, **shape)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = structure.act(channels)

    @staticmethod
    def _conv(
        in_channels: int, channels: int, kernel: int, structure: SSDStructure, **shape: int
    ) -> nn.Conv2d:
        if structure.extras == "binary":
            return structure.conv(in_channels, channels, kernel, **shape)
        return nn.Conv2d(in_channels, channels, kernel, bias=False, **shape)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, s, s) to (N, channels, t, t)."""
        return self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))


def halved(side: int) -> int:
    """Width of a map behind a layer of stride 2."""
    return -(-side // 2)


class Pyramid(nn.Module):
    """The six source maps: those of the body, normalised, and the extra ones.

    Args:
        body: its ``forward_maps`` gives the source maps at its end.
        norms: one for each source map.
        channels: those of each source map.
        sides: widths of the source maps.
        structure: what the extra maps are built of.

    Attributes:
        out_channels, sides: channels and pixels a side of all six maps.
    """

    def __init__(
        self,
        body: ResNet | VGG16,
        norms: Sequence[nn.Module],
        channels: Sequence[int],
        sides: Sequence[int],
        structure: SSDStructure,
    ) -> None:
        super().__init__()
        self.body, self.norms, self.extras = body, nn.ModuleList(norms), nn.ModuleList()
        self.out_channels, self.sides = list(channels), list(sides)
        for middle, wide in EXTRA_CHANNELS[len(norms) - len(ASPECT_RATIOS) :]:
            inside, side = self.out_channels[-1], self.sides[-1]
            self.extras.append(ExtraMap(inside, middle, wide, side, structure))
            self.out_channels.append(wide)
            self.sides.append(side - 2 if side in UNPADDED else halved(side))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, S, S) to the maps that the heads see, large to small."""
        raw = self.body.forward_maps(x)[-len(self.norms) :]
        maps = [norm(source) for norm, source in zip(self.norms, raw, strict=True)]
        last = raw[-1]
        for extra in self.extras:
            last = extra(last)
            maps.append(last)
        return maps


class DetectionHead(nn.Module):
    """Class logits and box offsets by one 3x3 convolution a map each."""

    def __init__(
        self, channels: Sequence[int], boxes: Sequence[int], classes: int, structure: SSDStructure
    ) -> None:
        super().__init__()
        self.classification = self._scores(channels, boxes, classes, structure)
        self.regression = self._scores(channels, boxes, 4, structure)

    @staticmethod
    def _scores(
        channels: Sequence[int], boxes: Sequence[int], columns: int, structure: SSDStructure
    ) -> SSDScoringHead:
        conv: Any = nn.Conv2d
        if structure.last == "binary":
            conv = partial(structure.quantizer.conv2d, padding_value=structure.padding_value)
        convs = [conv(c, b * columns, 3, padding=1) for c, b in zip(channels, boxes, strict=True)]
        return SSDScoringHead(nn.ModuleList(convs), columns)

    def forward(self, maps: list[Tensor]) -> HeadOutputs:
        """Maps to the outputs of all default boxes."""
        return HeadOutputs(self.classification(maps), self.regression(maps))


class BinarySSD(SSD):
    """torchvision's SSD over normalised images of one size, with the call of the suite's nets.

    Args:
        pyramid: images to the six source maps.
        num_classes: without background.
        image_size: pixels, height and width.
        scales: seven sizes of default boxes over the image's.
        structure: what the network is built of.

    Attributes:
        anchors: default boxes (A, 4), xyxy in pixels.
    """

    task = "detection"
    anchors: Tensor

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        image_size: int,
        scales: Sequence[float],
        structure: SSDStructure,
    ) -> None:
        steps = STEPS_300 if image_size == 300 else None
        generator = DefaultBoxGenerator(ASPECT_RATIOS, scales=list(scales), steps=steps)
        boxes = generator.num_anchors_per_location()
        head = DetectionHead(pyramid.out_channels, boxes, num_classes + 1, structure)
        self.image_shape = (image_size, image_size)
        super().__init__(pyramid, generator, self.image_shape, num_classes + 1, head=head)
        del self.transform  # images come normalised and in size
        self.structure = structure
        image = ImageList(torch.empty(1, 3, image_size, image_size), [self.image_shape])
        maps = [torch.empty(1, 1, side, side) for side in pyramid.sides]
        self.register_buffer("anchors", generator(image, maps)[0], persistent=False)
        initialize(self, structure)
        for conv in self.head.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, return_features: bool = False
    ) -> HeadOutputs | tuple[HeadOutputs, list[Tensor]]:
        """Images (N, 3, S, S) to the heads' outputs; on request also the six source maps."""
        maps = self.backbone(x)
        outputs = self.head(maps)
        return (outputs, maps) if return_features else outputs

    def detect(self, outputs: HeadOutputs) -> list[dict[str, Tensor]]:
        """Boxes (n, 4) xyxy in pixels, scores (n,) and labels (n,) from 1 of each image.

        SSD's rules: scores above 0.01, the 400 best of a class, suppression above an IoU of 0.45,
        the 200 best of an image.
        """
        count = len(outputs.class_logits)
        named = {
            "cls_logits": outputs.class_logits.float(),
            "bbox_regression": outputs.offsets.float(),
        }
        return self.postprocess_detections(
            named, [self.anchors] * count, [self.image_shape] * count
        )


def _ssd_resnet(
    name: str, depths: Sequence[int], quantizer: QuantizerSpec, options: dict[str, Any]
) -> BinarySSD:
    size, scales, classes, channels = _image(name, options)
    structure = SSDStructure(quantizer, **options)
    widths = (64, 128, 256, 512)
    body = ResNet(widths, depths, 1, channels, structure, stem="imagenet")
    body.remove_head()
    sides = [halved(halved(halved(size)))]
    sides += [halved(sides[0]), halved(halved(sides[0]))]
    norms = [nn.BatchNorm2d(width) for width in widths[1:]]
    pyramid = Pyramid(body, norms, widths[1:], sides, structure)
    return BinarySSD(pyramid, classes, size, scales, structure)


def _image(name: str, options: dict[str, Any]) -> tuple[int, list[float], int, int]:
    size, scales = options.pop("image_size"), options.pop("scales")
    if size < LEAST_SIZE:
        raise ValueError(f"backbone={name} is for images of {LEAST_SIZE} pixels and more: {size}")
    if len(scales) != len(ASPECT_RATIOS) + 1 or list(scales) != sorted(scales) or scales[0] <= 0:
        raise ValueError(
            f"backbone.scales={list(scales)} must be {len(ASPECT_RATIOS) + 1} rising sizes of "
            "default boxes over the image's"
        )
    return size, scales, options.pop("num_classes"), options.pop("in_channels")


def ssd300_resnet18(quantizer: QuantizerSpec, **options: Any) -> BinarySSD:
    """SSD with a ResNet-18 body; options: the keys of conf/backbone/ssd300_resnet18.yaml."""
    return _ssd_resnet("ssd300_resnet18", (2, 2, 2, 2), quantizer, options)


def ssd300_resnet34(quantizer: QuantizerSpec, **options: Any) -> BinarySSD:
    """SSD with a ResNet-34 body; options: the keys of conf/backbone/ssd300_resnet34.yaml."""
    return _ssd_resnet("ssd300_resnet34", (3, 4, 6, 3), quantizer, options)


def ssd300_vgg16(quantizer: QuantizerSpec, **options: Any) -> BinarySSD:
    """SSD with a VGG-16 body; options: the keys of conf/backbone/ssd300_vgg16.yaml."""
    size, scales, classes, channels = _image("ssd300_vgg16", options)
    structure = vgg16_structure(SSDStructure, quantizer, options)
    body = VGG16(1, channels, structure, structure.conv7 or "fp32")
    body.remove_head()
    sides = [halved(halved(halved(size)))]
    sides.append(halved(sides[0]))
    norms = [L2Norm(512), nn.Identity()]
    pyramid = Pyramid(body, norms, (512, 1024), sides, structure)
    return BinarySSD(pyramid, classes, size, scales, structure)
