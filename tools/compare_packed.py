"""Whether a packed network says what the trained one does, over the whole test set:

python tools/compare_packed.py <checkpoint> <packed file> [dataset.folder=<where the data lie>]

Of a classifier answers are compared, of a detector boxes: each with the closest one of its class in
the same image, which has to have its score within 1e-4 and its sides within 0.02 pixels. An image
that differs is followed layer by layer to the first code that differs, which comes of an activation
on its threshold to within rounding: floats were summed in another order. The exit code is 1 where
an image differs for any other reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bnnbench
from bnnbench import resolvers
from bnnbench.checks.keys import arguments
from bnnbench.layers import binary_layers
from bnnbench.packing.proof import TIE, distance
from bnnbench.quantizers.base import Side
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.trained import Trained
from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.runtime.linear import PackedLinear

ROOT = Path(__file__).parents[1]
SCORE, PLACE = 1e-4, 0.02
Seen = dict[str, tuple[Side, Tensor, Tensor]]  # of each layer its activation side, input and value


class Image(NamedTuple):
    """One image: answers of the trained network, how many the packed one shares, and the rest.

    Attributes:
        answers: 1, or the number of boxes.
        same: of these the packed network gives as well.
        others: boxes that only the packed network gives.
        layer: the first in which codes differ; empty where none does.
        distance: of the furthest such activation from its threshold, over the largest activation.
    """

    answers: int
    same: int
    others: int
    layer: str
    distance: float

    @property
    def differs(self) -> bool:
        """Whether an answer differs."""
        return self.same < self.answers or self.others > 0


def main() -> int:
    """Compare, print, and tell whether anything is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("packed", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value of the data set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained = bnnbench.load(options.checkpoint)
    packed = bnnbench.runtime.load(options.packed)
    given = test_images(trained, options.overrides)
    return told([compared(trained.net, packed, images) for images in given], trained.task)


def told(found: list[Image], task: str) -> int:
    """Print the counts; 1 where an image differs without a tie."""
    what = "boxes" if task == "detection" else "answers"
    differ = [each for each in found if each.differs]
    without = [each for each in differ if not each.layer or each.distance > TIE]
    answers, same = sum(each.answers for each in found), sum(each.same for each in found)
    others = sum(each.others for each in found)
    print(f"{len(found)} images, {answers} {what}: {same} the same, {others} only packed")
    crossed = [each for each in found if each.layer]
    furthest = max((each.distance for each in crossed), default=0.0)
    print(
        f"codes differ in {len(crossed)} images, first by activations within {furthest:.1e} of "
        f"their thresholds; {what} differ in {len(differ)} images, in {len(without)} without a tie"
    )
    return int(bool(without))


def test_images(trained: Trained, overrides: list[str]) -> Iterator[Tensor]:
    """Every test image by itself, normalised, (1, C, S, S)."""
    resolvers.register()
    config = trained.signature.config
    node = OmegaConf.create({"dataset": config["dataset"], "channels_last": False})
    node.dataset.mean, node.dataset.std = trained.signature.mean, trained.signature.std
    if "data_dir" in (arguments(str(node.dataset._target_)) or ()):
        node.dataset.data_dir = str(ROOT / "data")
    node.merge_with_dotlist(overrides)
    data = build_datamodule(node)
    data.prepare_data()
    data.setup("test")
    for images, _ in data.test_dataloader():
        yield from images.split(1)


@torch.no_grad()
def compared(net: nn.Module, packed: PackedNetwork, images: Tensor) -> Image:
    """What both networks say of one image."""
    seen: Seen = {}
    hooks = [
        layer.activation_quantizer.register_forward_hook(
            lambda side, args, value, name=name: seen.update({name: (side, args[0], value)})
        )
        for name, layer in binary_layers(net)
    ]
    expected = net(images)
    for hook in hooks:
        hook.remove()
    found, layer, away = watched(packed, images, seen)
    if packed.task != "detection":
        return Image(1, int(expected.argmax() == found.argmax()), 0, layer, away)
    own, theirs = net.detect(expected)[0], packed.detect(found)[0]  # pyright: ignore
    same = paired(own, theirs)
    return Image(len(own["labels"]), same, len(theirs["labels"]) - same, layer, away)


def paired(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> int:
    """Boxes that both have, each paired once."""
    left = torch.ones(len(theirs["labels"]), dtype=torch.bool)
    count = 0
    for box, score, label in zip(own["boxes"], own["scores"], own["labels"], strict=True):
        fits = left & (theirs["labels"] == label) & ((theirs["scores"] - score).abs() <= SCORE)
        fits &= (theirs["boxes"] - box).abs().amax(1) <= PLACE
        if bool(fits.any()):
            left[fits.int().argmax()] = False
            count += 1
    return count


def watched(packed: PackedNetwork, images: Tensor, seen: Seen) -> tuple[Any, str, float]:
    """What ``packed`` says, the first layer whose codes differ, and how far from a tie they are."""
    found: list[tuple[str, float]] = []
    names: dict[PackedConv2d, str] = {}
    for key, layer in packed.layers.items():
        own = layer.convolution if isinstance(layer, PackedLinear) else layer
        assert isinstance(own, PackedConv2d)
        names[own] = packed.layer_names[key]

    def look(reader: PackedConv2d, maps: Tensor) -> None:
        side, x, value = seen[names[reader]]
        is_high = (value > reader.activation.offset) ^ (reader.activation.scale < 0)
        differs = (reader.activation.codes(maps) > 0) != is_high.reshape(maps.shape)
        if not found and bool(differs.any()):
            away = distance(side, x).reshape(maps.shape)[differs]
            found.append((names[reader], float(away.max())))

    stems = [group.stem for group in packed.plan.groups.values() if group.stem is not None]
    for module in (*names, *stems):

        def fused(x: Any, next: Any = (), module: Any = module, **more: Any) -> Any:
            if isinstance(x, Tensor) and module in names:
                look(module, x)
            more |= {"keep": True} if "keep" in more else {}
            y, codes = type(module).fused(module, x, next=next, **more)
            for reader in next:
                look(reader, y)
            return y, codes

        module.fused = fused
    outputs = packed(images)
    for module in (*names, *stems):
        del module.fused
    layer, away = found[0] if found else ("", 0.0)
    return outputs, layer, away


if __name__ == "__main__":
    raise SystemExit(main())
