"""Wide residual networks for small images (Zagoruyko & Komodakis, BMVC 2016, arXiv 1605.07146).

Depth ``6 n + 4``: a 3x3 stem, three stages of n pre-activation blocks, batch norm, average pool,
classifier; larger images have the stems of ResNets (``stems.py``). BONN (arXiv 1908.06314, Table
3) names a network by its four widths, stem first: 16-16-32-64 (0.27 M parameters at depth 22) and
64-64-128-256 (4.33 M).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.backbones.blocks import PreActivationBlock
from bnnbench.backbones.stems import chosen_stem
from bnnbench.backbones.structure import Structure
from bnnbench.layers import QuantizerSpec


class WideResNet(Backbone):
    """Stem and three stages of pre-activation blocks; the second and third halve the map.

    Args:
        depth: 6 n + 4, such as 22 or 40.
        widths: channels of the stem and of the three stages.
        num_classes: length of the logits.
        in_channels: channels of the image.
        dropout: probability between the two convolutions of a block.
        structure: method and structure switches.
        stem: ``small``, ``half`` or ``imagenet``.

    Raises:
        ValueError: another depth, number of widths, or a probability outside [0, 1).
    """

    def __init__(
        self,
        depth: int,
        widths: Sequence[int],
        num_classes: int,
        in_channels: int,
        dropout: float,
        structure: Structure,
        stem: str = "small",
    ) -> None:
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(
                f"backbone.widths={list(widths)}: give four, of the stem and of three stages"
            )
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a wide ResNet has depth 6 n + 4, such as 22 or 40; got {depth}")
        if not 0 <= dropout < 1:
            raise ValueError(f"backbone.dropout={dropout} must be in [0, 1)")
        super().__init__(widths[-1], num_classes, structure)
        self.conv1 = structure.stem(stem, in_channels, widths[0])
        self.maxpool = structure.stem_pool(stem)
        self.stages = nn.Sequential()
        channels = widths[0]
        for index, width in enumerate(widths[1:]):
            stage = nn.Sequential()
            for block in range((depth - 4) // 6):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(PreActivationBlock(channels, width, stride, dropout, structure))
                channels = width
            self.stages.append(stage)
        self.bn = nn.BatchNorm2d(channels)
        self.act = structure.act(channels)
        initialize(self, structure)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, widths[-1], h, w)."""
        return self.act(self.bn(self.stages(self.maxpool(self.conv1(x)))))


def _wrn(depth: int, options: dict[str, Any]) -> WideResNet:
    size = options.pop("image_size")
    check_image_size(size, f"wrn{depth}", high=None)
    stem = chosen_stem(options.pop("stem", "small"), size)  # there was no other once
    keys = ("widths", "num_classes", "in_channels", "dropout")
    own = {key: options.pop(key) for key in keys}
    return WideResNet(depth, structure=Structure(**options), stem=stem, **own)


def wrn22(quantizer: QuantizerSpec, **options: Any) -> WideResNet:
    """WRN-22; options: the keys of conf/backbone/wrn22.yaml."""
    return _wrn(22, {"quantizer": quantizer, **options})


def wrn40(quantizer: QuantizerSpec, **options: Any) -> WideResNet:
    """WRN-40; options: the keys of conf/backbone/wrn40.yaml."""
    return _wrn(40, {"quantizer": quantizer, **options})
