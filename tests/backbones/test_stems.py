"""The rule of stems: cost, identity, and that stored networks stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.backbones.stems import as_stored, chosen_stem, identified, map_side, told
from bnnbench.config import build_backbone, options
from bnnbench.metrics import count_operations
from bnnbench.records.fingerprint import fingerprint, fingerprinted
from bnnbench.records.foreign import taken
from bnnbench.records.signature import full_config

Compose = Callable[..., DictConfig]
OF_SMALL_IMAGES = ("vgg_small", "vgg7")


def test_the_map_behind_the_stem_has_25_to_48_pixels() -> None:
    for size in range(25, 193):
        assert 25 <= map_side(chosen_stem("auto", size), size) <= 48


@pytest.mark.parametrize("size", [64, 96, 128, 192])
def test_no_size_up_to_192_costs_more_than_48_pixels(size: int) -> None:
    def cost(size: int) -> float:
        net = build_backbone("resnet20", image_size=size)
        return sum(layer.macs for layer in count_operations(net, (3, size, size)).layers[1:])

    assert cost(size) <= cost(48)


@pytest.mark.parametrize("size", [8, 24, 50, 65, 100, 127, 224])
@pytest.mark.parametrize(
    "backbone",
    [n for n in options("backbone") if not n.startswith(("ssd", "timm", "resnet34", "wrn40"))],
)
def test_every_size_has_a_network_or_a_line_that_names_one(backbone: str, size: int) -> None:
    if backbone in OF_SMALL_IMAGES and size > 64:
        with pytest.raises(ValueError, match=r"set dataset.image_size=64, or choose resnet18"):
            build_backbone(backbone, image_size=size)
        return
    net = build_backbone(backbone, "xnor", num_classes=3, image_size=size).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, size, size)).shape == (1, 3)


@pytest.mark.parametrize("backbone", ["resnet20", "resnet18", "wrn22"])
@pytest.mark.parametrize("size", [48, 64, 65, 128])
def test_a_network_that_changed_is_another_run(compose: Compose, backbone: str, size: int) -> None:
    """Formerly: the small stem up to 64 pixels, ImageNet's from 128 on, nothing in between."""
    words = ["dataset=imagenet", f"backbone={backbone}", f"dataset.image_size={size}"]
    cfg = compose(*words)
    stored = fingerprinted(cfg)["backbone"]
    former = fingerprint(compose(*words, "~backbone.stem"))  # as configs without the key have it
    assert (fingerprint(cfg) == former) is (size != 64)
    assert stored["stem"] == ("half" if size == 64 else "auto")
    named = fingerprint(compose(*words, f"backbone.stem={chosen_stem('auto', size)}"))
    assert (named == fingerprint(cfg)) is (size == 64)


@pytest.mark.parametrize(("size", "stride"), [(48, 1), (64, 1), (96, 2), (128, 2)])
def test_what_a_file_holds_is_built_as_it_was(compose: Compose, size: int, stride: int) -> None:
    """A checkpoint of before says auto at 64 pixels and means the small stem."""
    cfg = compose("dataset=imagenet", "backbone=resnet18", f"dataset.image_size={size}")
    now = full_config(cfg)
    before: dict[str, Any] = now | {"backbone": now["backbone"] | {"stem": "auto"}}
    for config, expected in ((before, stride), (now, 2 if size > 48 else 1)):
        node = taken(config, ("backbone",), "a file")["backbone"]
        kept = {k: v for k, v in node.items() if k not in ("name", "task", "_target_")}
        net = build_backbone("resnet18", "adabin", **kept)
        assert net.conv1.stride == (expected, expected)


def test_networks_without_the_key_keep_the_small_stem() -> None:
    from bnnbench.backbones.resnet import resnet20
    from bnnbench.config import load_quantizer

    keys = {"num_classes": 2, "in_channels": 3, "image_size": 64, "shortcut": "conv"}
    net = resnet20(load_quantizer("xnor"), **keys, downsample="pad", nonlinearity="identity")
    assert net.conv1.stride == (1, 1)


def test_detectors_have_their_own() -> None:
    net: Any = build_backbone("ssd300_resnet18", "xnor", image_size=96)
    body = net.backbone.body
    assert (body.conv1.kernel_size, body.conv1.stride) == ((7, 7), (2, 2))
    assert identified({"name": "ssd300_resnet18", "image_size": 64}) == as_stored(
        {"name": "ssd300_resnet18", "image_size": 64}
    )


def test_the_choice_in_a_line() -> None:
    node = {"name": "resnet18", "stem": "auto", "image_size": 64}
    assert told(node) == "resnet18 at 64 pixels: stem=half (maps of 32 pixels)"
    assert told(node | {"image_size": 224}) == (
        "resnet18 at 224 pixels: stem=imagenet (maps of 56 pixels)"
    )
    assert told(node | {"stem": "small"}) is None
    assert told({"name": "vgg_small", "image_size": 64}) is None
