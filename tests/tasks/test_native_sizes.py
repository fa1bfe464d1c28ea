"""Parameters of native networks against those of the authors' classes, counted layer by layer.

The sums are of what the classes build, read in the repositories that ``structure/native`` names;
none of the suite's code is in them. What a class has and never uses is left out of them: the batch
norm behind the classifier of IR-Net's and AdaBin's ImageNet networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from omegaconf import DictConfig
from torch import nn

from bnnbench.config import backbone_from_config, quantizer_from_config
from bnnbench.runs.stages import stages

RESNET20, RESNET18 = ((16, 32, 64), 3), ((64, 128, 256, 512), 2)


class Conv(NamedTuple):
    """A convolution between stages' widths."""

    i: int
    o: int
    kernel: int = 3

    @property
    def weights(self) -> int:
        return self.i * self.o * self.kernel**2


def main_path(widths: tuple[int, ...], depth: int) -> Iterator[Conv]:
    channels = widths[0]
    for width in widths:
        for _ in range(2 * depth):
            yield Conv(channels, width)
            channels = width


def projections(widths: tuple[int, ...]) -> list[Conv]:
    """One where the width changes."""
    return [Conv(i, o, 1) for i, o in pairwise(widths)]


def size(
    shape: tuple[tuple[int, ...], int],
    binary: int = 0,
    act: int = 0,
    stem_act: int = 0,
    inputs: int = 0,
    shortcuts: str = "none",
    head_norm: bool = True,
    stem: int = 3,
    classes: int = 10,
) -> int:
    """Parameters of a ResNet.

    Args:
        shape: widths of the stages, and blocks of each.
        binary: learned numbers of a filter of a binary convolution, such as its scale.
        act: those of a channel behind one.
        stem_act: those of a channel behind the stem.
        inputs: those of a channel before a binary convolution, such as its threshold.
        shortcuts: ``none``, ``real`` or ``binary`` 1x1 convolutions where the width changes.
        head_norm: batch norm before the classifier.
        stem: its kernel.
        classes: logits.
    """
    widths, depth = shape
    total = 3 * widths[0] * stem**2 + (2 + stem_act) * widths[0]
    for conv in main_path(widths, depth):
        total += conv.weights + (2 + binary + act) * conv.o + inputs * conv.i
    if shortcuts != "none":
        for conv in projections(widths):
            total += conv.weights + (2 + binary * (shortcuts == "binary")) * conv.o
    return total + 2 * head_norm * widths[-1] + (widths[-1] + 1) * classes


def reactnet(binary: int) -> int:
    """A threshold a channel before each convolution, two shifts and a slope behind each."""
    kind = {"act": 3, "inputs": 1, "shortcuts": "real", "head_norm": False}
    return size(RESNET18, binary, **kind, stem=7, classes=1000)


AUTHORS = {
    # IR-Net, OvSW: no learned number in a layer. ReCU, BiPer, SiMaN: a scale a filter, alpha.
    # RBNN: alpha and an angle a filter. SiMaN's B is no trained parameter.
    "irnet_cifar10_resnet20": size(RESNET20),
    "ovsw_cifar10_resnet20": size(RESNET20),
    "ovsw_cifar10_resnet18": size(RESNET18, shortcuts="binary"),
    "recu_cifar10_resnet20": size(RESNET20, binary=1),
    "recu_cifar10_resnet18": size(RESNET18, binary=1),
    "biper_cifar10_resnet18": size(RESNET18, binary=1),
    "siman_cifar10_resnet20": size(RESNET20, binary=1, act=1),  # PReLU; a ReLU behind the stem
    "siman_cifar10_resnet18": size(RESNET18, binary=1, shortcuts="binary"),
    "rbnn_cifar10_resnet20": size(RESNET20, binary=2),
    "rbnn_cifar10_resnet18": size(RESNET18, binary=2, shortcuts="binary"),
    # Maxout: two slopes a channel; activations: alpha and beta a layer, of 18 and 16.
    "adabin_cifar10_resnet20": size(RESNET20, act=2, stem_act=2) + 2 * 18,
    "adabin_cifar10_resnet18": size(RESNET18, act=2, stem_act=2, shortcuts="real") + 2 * 16,
    "reste_cifar10_resnet20": size(RESNET20),
    "reste_cifar10_resnet18": size(RESNET18, shortcuts="real"),
    # ReBNN: alpha a filter; RBONN: alpha and u.
    "reactnet_imagenet_resnet18": reactnet(0),
    "rebnn_imagenet_resnet18": reactnet(1),
    "rbonn_imagenet_resnet18": reactnet(2),
    # Not IE-Net's: c is one a layer here and one a filter in its ResNet-20; the shortcuts of its
    # ResNet-18 have one base.
}


def test_the_sums_are_the_published_ones() -> None:
    """ReActNet's and AdaBin's released weights, He et al.'s network, BiPer's README.md."""
    assert AUTHORS["reactnet_imagenet_resnet18"] == 11_704_424
    assert AUTHORS["adabin_cifar10_resnet20"] == 271_262
    assert AUTHORS["adabin_cifar10_resnet18"] == 11_182_826
    assert size(RESNET20, head_norm=False) == 269_722
    assert round(AUTHORS["biper_cifar10_resnet18"] / 1e6, 2) == 11.01


@pytest.mark.parametrize("name", AUTHORS)
def test_the_native_network_has_the_authors_parameters(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for start in ("kaiming_normal_", "kaiming_uniform_"):  # drawing weights takes seconds
        monkeypatch.setattr(nn.init, start, lambda tensor, *_, **__: tensor)
    quantizer, dataset, backbone = name.split("_", 2)
    arguments = [f"quantizer={quantizer}", f"dataset={dataset}", f"backbone={backbone}"]
    cfg = stages(compose(*arguments, "recipe=native"))[-1].cfg
    net = backbone_from_config(cfg.backbone, quantizer_from_config(cfg.quantizer))
    assert sum(parameter.numel() for parameter in net.parameters()) == AUTHORS[name]
