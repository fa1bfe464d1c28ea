"""Authors' releases, by the names of their tensors: each network then computes what theirs does."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bnnbench.config import build_backbone, load_quantizer
from bnnbench.records.checkpoint_maps import map_for
from bnnbench.records.checkpoints import load_weights

from . import released as of

CIFAR, LARGE = (16, 32, 64), (64, 128, 256, 512)


class Release(NamedTuple):
    """A release: whose map, names and shapes, their network, and ours."""

    named: str
    shapes: Callable[[], Iterable[tuple[str, tuple[int, ...]]]]
    theirs: Callable[[of.State, Tensor], Tensor]
    quantizer: str
    backbone: str
    options: dict[str, Any]
    size: int = 32


def _kin(method: str) -> Release:
    return Release(
        "reactnet",
        lambda: of.block_per_conv_shapes(method),
        lambda state, x: of.block_per_conv(state, x, method),
        method,
        "resnet18",
        {"stem": "imagenet"},
        64,
    )


def _no_shapes(name: str, channels: int) -> of.Shapes:
    return iter(())


RELEASES = {
    "AdaBin, CIFAR ResNet-20": Release(
        "adabin",
        lambda: of.resnet_shapes(CIFAR, 3, of.adabin_shapes, of.maxout_shapes),
        lambda state, x: of.resnet(state, x, of.adabin, of.maxout, of.padded),
        "adabin",
        "resnet20",
        {},
    ),
    "AdaBin, CIFAR ResNet-18": Release(
        "adabin",
        lambda: of.resnet_shapes(
            LARGE, 2, of.adabin_shapes, of.maxout_shapes, ("shortcut.0", "shortcut.1")
        ),
        lambda state, x: of.resnet(state, x, of.adabin, of.maxout, of.projected),
        "adabin",
        "resnet18",
        {"stem": "small"},
        16,
    ),
    "AdaBin, ImageNet ResNet-18": Release(
        "adabin",
        lambda: (
            *of.resnet_shapes(
                LARGE,
                2,
                of.adabin_shapes,
                of.maxout_shapes,
                ("downsample.1", "downsample.2"),
                "fc",
                7,
            ),
            *of.norm_of("bn3", 10),
            *of.maxout_shapes("nonlinear2", 512),
        ),
        lambda state, x: of.resnet(state, x, of.adabin, of.maxout, of.pooled, "fc"),
        "adabin",
        "resnet18",
        {"stem": "imagenet", "downsample": "avgpool_conv"},
        64,
    ),
    "IR-Net, CIFAR ResNet-20": Release(
        "irnet",
        lambda: of.resnet_shapes(CIFAR, 3, _no_shapes),
        lambda state, x: of.resnet(state, x, of.irnet, of.hardtanh, of.padded),
        "irnet",
        "resnet20",
        {},
    ),
    "IR-Net, ImageNet ResNet-18": Release(
        "irnet",
        lambda: (
            *of.resnet_shapes(
                LARGE,
                2,
                _no_shapes,
                shortcut=("downsample.0", "downsample.1"),
                classifier="fc",
                kernel=7,
            ),
            *of.norm_of("bn3", 10),
        ),
        lambda state, x: of.resnet(state, x, of.irnet, of.hardtanh, of.projected, "fc"),
        "irnet",
        "resnet18",
        {"stem": "imagenet"},
        64,
    ),
    "IR-Net, VGG-small": Release(
        "vgg_small",
        lambda: of.vgg_shapes(_no_shapes),
        lambda state, x: of.vgg(state, x, of.irnet),
        "irnet",
        "vgg_small",
        {"head_norm": False},
    ),
    "ReCU, CIFAR ResNet-20": Release(
        "recu",
        lambda: of.resnet_shapes(CIFAR, 3, of.recu_shapes),
        lambda state, x: of.resnet(state, x, of.recu, of.hardtanh, of.pooled_padded),
        "recu",
        "resnet20",
        {"downsample": "avgpool_pad"},
    ),
    "ReCU, VGG-small": Release(
        "vgg_small",
        lambda: of.vgg_shapes(of.recu_shapes),
        lambda state, x: of.vgg(state, x, of.recu),
        "recu",
        "vgg_small",
        {"head_norm": False},
    ),
    "ReActNet": _kin("reactnet"),
    "ReBNN": _kin("rebnn"),
    "RBONN": _kin("rbonn"),
    "Bi-Real Net": _kin("birealnet"),
    "ReActNet-A": Release(
        "reactnet_a", of.mobile_shapes, of.mobile, "reactnet", "reactnet_a", {"width": 0.25}, 64
    ),
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_computes_what_its_authors_network_does(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]
    torch.manual_seed(1)
    state = of.random_state(release.shapes())
    form = {"activation_center": "reference"} if release.quantizer == "adabin" else {}
    spec = load_quantizer(release.quantizer, **form)
    net = build_backbone(release.backbone, spec, image_size=release.size, **release.options)
    net.double().eval()
    found = map_for([*state], [*net.state_dict()])
    assert found is not None
    assert found.name == {"irnet": "resnet"}.get(release.named, release.named)
    file = tmp_path / "model.th"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, file)
    load_weights(net, file, named=release.named)
    images = torch.randn(2, 3, release.size, release.size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), release.theirs(state, images))


def test_the_stem_of_reactnet_has_no_nonlinearity(tmp_path: Path) -> None:
    """Where the network has one all the same, it becomes the identity."""
    state = of.random_state(of.block_per_conv_shapes("reactnet"))
    torch.save(state, tmp_path / "model.th")
    net = build_backbone("resnet18", "reactnet", image_size=64, stem="imagenet").double()
    load_weights(net, tmp_path / "model.th")
    x = torch.randn(1, 64, 2, 2, dtype=torch.float64)
    assert torch.equal(net.act1(x), x)  # pyright: ignore[reportCallIssue]
    prelu = state["layer2.3.prelu.weight"]
    moved = state["layer2.2.move0.bias"].flatten()
    own = net.state_dict()
    assert torch.equal(own["stages.1.1.act2.slope"], prelu)
    assert torch.equal(own["stages.1.1.conv1.activation_quantizer.threshold"], -moved)
