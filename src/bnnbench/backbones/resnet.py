"""ResNets (He et al., arXiv 1512.03385), for small images in the variants of IR-Net and AdaBin.

``resnet20``: 3 stages of 3 blocks, 16-32-64 channels. ``resnet18``: 4 stages of 2 blocks,
64-128-256-512 channels; ``resnet34``: of 3, 4, 6 and 3 blocks. Behind the small stem, one 3x3
convolution, the stages see the image's own size, behind the half stem, a strided one, half of it,
and behind ImageNet's, a strided 7x7 convolution and a max pool, a quarter (``stems.py``). Without
norms (``norm_free.py``) the stem is a convolution alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.backbones.blocks import BasicBlock, PreActivationBlock
from bnnbench.backbones.norm_free import NormFreeBlock, expected_variances
from bnnbench.backbones.stems import chosen_stem
from bnnbench.backbones.structure import ResNetStructure, Structure
from bnnbench.layers import QuantizerSpec


class ResNet(Backbone):
    """Stem, stages of basic blocks that halve the map from the second on, average pool, classifier.

    Args:
        widths: channels of each stage; the stem has the first stage's.
        depths: blocks of each stage.
        num_classes: length of the logits.
        in_channels: channels of the image.
        structure: method and structure switches.
        stem: ``small``, ``half`` or ``imagenet``.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        num_classes: int,
        in_channels: int,
        structure: Structure,
        stem: str = "small",
    ) -> None:
        super().__init__(widths[-1], num_classes, structure)
        self.conv1 = structure.stem(stem, in_channels, widths[0])
        has_norms = structure.norm == "batch"
        self.bn1 = nn.BatchNorm2d(widths[0]) if has_norms else nn.Identity()
        self.act1 = structure.stem_act(widths[0])
        self.maxpool = structure.stem_pool(stem)
        self.stages = nn.Sequential()
        channels, variances = widths[0], expected_variances(depths)
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage = nn.Sequential()
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                shape = channels, width, stride
                if not has_norms:
                    stage.append(NormFreeBlock(*shape, structure, next(variances)))
                elif structure.block == "pre_activation":
                    stage.append(PreActivationBlock(*shape, 0.0, structure))
                else:
                    stage.append(BasicBlock(*shape, structure))
                channels = width
            self.stages.append(stage)
        initialize(self, structure)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, widths[-1], h, w)."""
        return self.forward_maps(x)[-1]

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the output of every stage."""
        maps = [self.maxpool(self.act1(self.bn1(self.conv1(x))))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


def _resnet(
    name: str, widths: Sequence[int], depths: Sequence[int], options: dict[str, Any]
) -> ResNet:
    size = options.pop("image_size")
    check_image_size(size, name, high=None)
    stem = chosen_stem(options.pop("stem", "small"), size)  # resnet20 had no other once
    classes, channels = options.pop("num_classes"), options.pop("in_channels")
    return ResNet(widths, depths, classes, channels, ResNetStructure(**options), stem)


def resnet20(quantizer: QuantizerSpec, **options: Any) -> ResNet:
    """CIFAR ResNet-20; options: the keys of conf/backbone/resnet20.yaml."""
    return _resnet("resnet20", (16, 32, 64), (3, 3, 3), {"quantizer": quantizer, **options})


def resnet34(quantizer: QuantizerSpec, **options: Any) -> ResNet:
    """ResNet-34; options: the keys of conf/backbone/resnet34.yaml."""
    return _resnet(
        "resnet34", (64, 128, 256, 512), (3, 4, 6, 3), {"quantizer": quantizer, **options}
    )


def resnet18(quantizer: QuantizerSpec, **options: Any) -> ResNet:
    """ResNet-18; options: the keys of conf/backbone/resnet18.yaml."""
    return _resnet("resnet18", (64, 128, 256, 512), (2,) * 4, {"quantizer": quantizer, **options})
