"""AlexNet as binary networks have it: XNOR-Net's layers (arXiv 1603.05279), with batch norms.

Code: allenai/XNOR-Net, models/alexnetxnor.lua. 96 - 256 - 384 - 384 - 256 channels without groups,
kernels 11 (stride 4), 5, 3, 3, 3, 3x3 max pools of stride 2 behind the first, second and fifth, two
fully connected layers of 4096, the classifier. The order is the Lua code's, norm - sign -
convolution - pool, which is BNN's convolution - pool - norm - sign read from the next layer on
(arXiv 1602.02830): pools see real numbers. Behind the stem come its norm, a ReLU, its pool, and the
first binary layer's own norm. As there, the first fully connected layer is a convolution over the
whole last map; nothing is dropped out (a PyTorch port does) and there is no local response norm.

Changed: binary layers have no bias, norms their usual eps; the method's nonlinearity stands between
norm and sign, and before the classifier; images of up to 48 pixels meet a 3x3 stem of stride 1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bnnbench.backbones.base import Backbone, check_image_size, initialize
from bnnbench.backbones.stems import LARGEST
from bnnbench.backbones.structure import Structure
from bnnbench.layers import QuantizerSpec

STEM, HIDDEN = 96, 4096
LAYERS = ((256, 5), (384, 3), (384, 3), (256, 3))  # channels and kernel of the binary convolutions
POOLED = (2, 5)  # layers with a pool behind them, beside the stem


class AlexNet(Backbone):
    """Five convolutions, two fully connected layers, a classifier.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the image.
        image_size: pixels; the layer over the whole last map has that one's size.
        structure: method and structure switches.
    """

    def __init__(
        self, num_classes: int, in_channels: int, image_size: int, structure: Structure
    ) -> None:
        super().__init__(HIDDEN, num_classes, structure)
        small = image_size <= LARGEST["small"]  # pyright: ignore[reportOperatorIssue]
        self.conv1 = structure.stem("small" if small else "alexnet", in_channels, STEM)
        self.stem = nn.Sequential(nn.BatchNorm2d(STEM), nn.ReLU(inplace=True), _pool())
        side = _pooled(image_size if small else (image_size + 4 - 11) // 4 + 1)
        self.features, channels = nn.Sequential(), STEM
        for index, (width, kernel) in enumerate(LAYERS, start=2):
            self._before(self.features, index, channels)
            conv = structure.conv(channels, width, kernel, padding=kernel // 2)
            self.features.add_module(f"conv{index}", conv)
            if index in POOLED:
                self.features.add_module(f"pool{index}", _pool())
                side = _pooled(side)
            channels = width
        self.hidden = nn.Sequential()
        for index, kernel in ((6, side), (7, 1)):
            self._before(self.hidden, index, channels)
            self.hidden.add_module(f"conv{index}", structure.conv(channels, HIDDEN, kernel))
            channels = HIDDEN
        self._before(self.hidden, 8, HIDDEN)
        initialize(self, structure)

    def _before(self, layers: nn.Sequential, index: int, channels: int) -> None:
        """The norm and the nonlinearity that stand before the layer of this number."""
        layers.add_module(f"bn{index}", nn.BatchNorm2d(channels))
        layers.add_module(f"act{index}", self.structure.act(channels))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, S, S) to (N, 256, h, h), h 6 for 224 pixels."""
        return self.features(self.stem(self.conv1(x)))

    def pool(self, features: Tensor) -> Tensor:
        """The fully connected layers' view of the last map, (N, 4096)."""
        return self.hidden(features).flatten(1)

    def hint_modules(self) -> list[nn.Module]:
        """The maps before and after the last two convolutions."""
        return [self.features.act4, self.features.pool5]  # pyright: ignore[reportReturnType]


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)  # at 224 pixels nothing is left over


def _pooled(side: int) -> int:
    return max(-(-(side - 3) // 2) + 1, 1)


def alexnet(quantizer: QuantizerSpec, **options: Any) -> AlexNet:
    """AlexNet; options: the keys of conf/backbone/alexnet.yaml."""
    check_image_size(options["image_size"], "alexnet", high=None)
    keys = ("num_classes", "in_channels", "image_size")
    shape = {key: options.pop(key) for key in keys}
    return AlexNet(**shape, structure=Structure(quantizer, **options))
