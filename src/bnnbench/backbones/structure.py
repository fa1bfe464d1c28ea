"""What a backbone is built of besides the method: shortcuts, norms, both ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.layers import QuantizerSpec
from bnnbench.quantizers import NONLINEARITIES
from bnnbench.quantizers.standardise import unit_norm

SHORTCUTS = ("conv", "block")  # one identity shortcut per convolution, or per two
# Kernel, stride and padding of each first convolution.
STEMS = {"small": (3, 1, 1), "half": (3, 2, 1), "imagenet": (7, 2, 3), "alexnet": (11, 4, 2)}
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "none": nn.Identity}


class StandardizedConv2d(nn.Conv2d):
    """A convolution with scaled weight standardisation and a learned gain per filter."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, **arguments: int) -> None:
        super().__init__(in_channels, out_channels, kernel, **arguments)  # pyright: ignore
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (N, C, H, W) to (N, O, H', W')."""
        return self._conv_forward(input, self.gain * unit_norm(self.weight), self.bias)


class PadShortcut(nn.Module):
    """Option A of He et al. (arXiv 1512.03385): every stride-th pixel, new channels are zero.

    ``pool`` averages the stride x stride window instead of taking its first pixel (ReCU).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, pool: bool) -> None:
        super().__init__()
        self.stride, self.pool = stride, pool
        self.front = (out_channels - in_channels) // 2
        self.back = out_channels - in_channels - self.front

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        if self.pool:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.front, self.back))


def _conv_shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    pool: bool,
    conv: Callable[..., nn.Conv2d] = nn.Conv2d,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> nn.Module:
    """1x1 convolution and norm, strided or behind an average pool."""
    layers: dict[str, nn.Module] = {}  # named, so that either form loads the other's weights
    if pool and stride > 1:
        layers["pool"] = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
    layers["conv"] = conv(in_channels, out_channels, 1, 1 if pool else stride, bias=False)
    layers["bn"] = norm(out_channels)
    return nn.Sequential(OrderedDict(layers))


DOWNSAMPLES: dict[str, Callable[..., nn.Module]] = {
    "pad": lambda i, o, s, *_: PadShortcut(i, o, s, pool=False),
    "avgpool_pad": lambda i, o, s, *_: PadShortcut(i, o, s, pool=True),
    "conv": lambda i, o, s, *conv_norm: _conv_shortcut(i, o, s, False, *conv_norm),
    "avgpool_conv": lambda i, o, s, *conv_norm: _conv_shortcut(i, o, s, True, *conv_norm),
    "binary_conv": lambda i, o, s, *conv_norm: _conv_shortcut(i, o, s, False, *conv_norm),
}


@dataclass(frozen=True)
class Structure:
    """What a backbone is built of besides the method.

    Attributes:
        quantizer: the method.
        shortcut: ``conv`` (a shortcut around each convolution) or ``block`` (around each two).
        downsample: a key of ``DOWNSAMPLES``, ``binary_conv`` being ``conv`` with the method's own
            1x1 convolution; None where a backbone has no shortcuts.
        nonlinearity: a key of ``NONLINEARITIES``; it stands after the residual add.
        stem_nonlinearity: the one behind the stem's norm; ``same``: ``nonlinearity`` as well.
        head_norm: batch norm between pooling and classifier.
        padding_value: 0, -1 or +1 around binarized maps.
        first: ``fp32`` or ``binary`` (weights only) stem.
        last: ``fp32`` or ``binary`` classifier.
        projection: ``fp32`` or ``binary`` 1x1 convolutions of shortcuts; a switch of detectors.
    """

    quantizer: QuantizerSpec
    nonlinearity: str
    shortcut: str | None = None
    downsample: str | None = None
    head_norm: bool = False
    padding_value: float = 0
    first: str = "fp32"
    last: str = "fp32"
    stem_nonlinearity: str = "same"
    projection: ClassVar[str] = "fp32"  # behind the fields: a detector's structure makes it one
    norms: ClassVar[tuple[str, ...]] = ("batch",)  # what the backbone can be built with

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise ValueError(
                f"quantizer={self.quantizer.name} has norm={self.norm}, this backbone one of "
                f"{self.norms}: set quantizer.norm=batch, or take a ResNet or vgg7 for norm=none"
            )
        choices: dict[str, tuple[str, ...]] = {
            "first": ("fp32", "binary"),
            "last": ("fp32", "binary"),
        }
        choices["nonlinearity"] = tuple(NONLINEARITIES)
        choices["stem_nonlinearity"] = ("same", *NONLINEARITIES)
        if self.shortcut is not None:
            choices |= {"shortcut": SHORTCUTS, "downsample": tuple(DOWNSAMPLES)}
        for key, valid in choices.items():
            if getattr(self, key) not in valid:
                raise ValueError(f"backbone.{key}={getattr(self, key)!r}: choose one of {valid}")
        # Not quantizer.example: what FDA and IE-Net draw for this one stands before all weights of
        # their networks, and without it no committed result of theirs would be found again.
        side = self.quantizer.activation(1)
        for key in ("nonlinearity", "stem_nonlinearity"):
            if getattr(self, key) == "relu" and side.symmetric and not self._has_norm_before(key):
                raise ValueError(
                    f"backbone.{key}=relu before quantizer={self.quantizer.name}: the sign of a "
                    "ReLU's output is constant; choose identity, hardtanh, prelu, rprelu or maxout"
                )
        if self.nonlinearity == "identity" and side.bits == 32:
            raise ValueError(
                f"backbone.nonlinearity=identity with quantizer={self.quantizer.name}: a network "
                "with real activations and no nonlinearity is linear; choose relu, for instance"
            )

    def _has_norm_before(self, key: str) -> bool:
        """Whether a norm stands between this nonlinearity and the sign: behind the stem alone."""
        return key == "stem_nonlinearity" and self.block == "pre_activation"

    @property
    def norm(self) -> str:
        """``batch``, or ``none`` where the method is one of networks without norms."""
        return self.quantizer.config.get("norm", "batch")

    @property
    def block(self) -> str:
        """ResNets' block: ``basic``, or ``pre_activation`` where the method is made for it."""
        return self.quantizer.config.get("block", "basic")

    @property
    def norm_start(self) -> float:
        """Where scales of batch norms start; a method may have its branches start at 0."""
        return self.quantizer.config.get("norm_start", 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The switches, without the method; of some only what is unusual."""
        switches = {field.name: getattr(self, field.name) for field in fields(self)}
        del switches["quantizer"]
        own = {
            "norm": ("batch", self.norm),
            "norm_start": (1.0, self.norm_start),
            "block": ("basic", self.block),
            "stem_nonlinearity": ("same", switches.pop("stem_nonlinearity")),
        }
        return switches | {key: value for key, (usual, value) in own.items() if value != usual}

    def act(self, channels: int) -> nn.Module:
        """The nonlinearity for ``channels`` channels."""
        return NONLINEARITIES[self.nonlinearity](channels)

    def stem_act(self, channels: int) -> nn.Module:
        """The nonlinearity behind the stem's norm; without norms there is none."""
        if self.norm == "none":
            return nn.Identity()
        same = self.stem_nonlinearity == "same"
        return NONLINEARITIES[self.nonlinearity if same else self.stem_nonlinearity](channels)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
        """A binarized 3x3 convolution without bias."""
        return self.conv(in_channels, out_channels, 3, stride=stride, padding=1)

    def conv(self, in_channels: int, out_channels: int, kernel: int, **arguments: int) -> nn.Conv2d:
        """A binarized convolution without bias."""
        padded = {"bias": False, "padding_value": self.padding_value}
        return self.quantizer.conv2d(in_channels, out_channels, kernel, **arguments, **padded)

    def shortcut_layer(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """What a shortcut does where the shape changes; nothing where it does not."""
        if stride == 1 and in_channels == out_channels:
            return nn.Identity()
        assert self.downsample is not None
        is_binary = "binary" in (self.projection, self.downsample.removesuffix("_conv"))
        conv = self.quantizer.conv2d if is_binary else nn.Conv2d
        if self.norm == "none":  # what keeps the scale then is the method's own standardisation
            conv = self.quantizer.weight_only().conv2d
        shape = in_channels, out_channels, stride
        return DOWNSAMPLES[self.downsample](*shape, conv, NORMS[self.norm])

    def stem3x3(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        """The first convolution of small images: full precision, or binary weights alone."""
        return self.stem("small", in_channels, out_channels)

    def stem(self, kind: str, in_channels: int, out_channels: int) -> nn.Conv2d:
        """The first convolution: 3x3 (``small``), strided (``half``), or larger ones."""
        kernel, stride, padding = STEMS[kind]
        arguments: dict[str, Any] = {"stride": stride, "padding": padding, "bias": False}
        if self.first == "fp32":
            conv = StandardizedConv2d if self.norm == "none" else nn.Conv2d
            return conv(in_channels, out_channels, kernel, **arguments)
        weight_only = self.quantizer.weight_only()  # the image stays real
        return weight_only.conv2d(in_channels, out_channels, kernel, **arguments)

    def stem_pool(self, kind: str) -> nn.Module:
        """What halves the map behind the stem once more, in ImageNet's networks."""
        return nn.MaxPool2d(3, 2, 1) if kind == "imagenet" else nn.Identity()

    def classifier(self, features: int, num_classes: int) -> nn.Linear:
        """The last layer."""
        bias = self.quantizer.config.get("bias", True)
        linear = nn.Linear if self.last == "fp32" else self.quantizer.linear
        return linear(features, num_classes, bias=bias)


class NormFreeStructure(Structure):
    """The structure of networks that exist without norms as well (WAGE)."""

    norms: ClassVar[tuple[str, ...]] = tuple(NORMS)


class ResNetStructure(NormFreeStructure):
    """The structure of ResNets: without norms they need a shortcut per convolution (A&B BNN)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm == "none" and self.shortcut != "conv":
            raise ValueError(f"backbone.shortcut={self.shortcut}: choose conv with norm=none")
        if self.norm == "none" and self.downsample == "binary_conv":
            raise ValueError(
                "backbone.downsample=binary_conv: choose conv or avgpool_conv with norm=none; the "
                "weights of shortcuts are binary there"
            )
        if self.norm == "none" and self.stem_nonlinearity != "same":
            raise ValueError(
                f"backbone.stem_nonlinearity={self.stem_nonlinearity}: behind a stem without norm "
                "there is none; leave it at same with norm=none"
            )
