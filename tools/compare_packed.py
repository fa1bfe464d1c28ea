"""Whether packed networks say what the trained ones do, over the whole test set:

    python tools/compare_packed.py logs/runs/<run> ... [dataset.data_dir=<folder>] [--out <file>]

Each run's last checkpoint is packed. Of a classifier answers are compared, of a detector boxes:
each with the closest one of its class in the same image, which has to have its score within 1e-4
and its sides within 0.02 pixels. An image that differs is followed layer by layer to the first code
that differs, which comes of an activation on its threshold to within rounding: floats were summed
in another order. How often the trained network differs from itself, weights and maps in the other
memory format, is counted as well. The exit code is 1 where an image differs without a tie.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bnnbench
from bnnbench import resolvers, runtime
from bnnbench.checks.keys import arguments
from bnnbench.layers import binary_layers
from bnnbench.packing.proof import TIE, distance, is_high
from bnnbench.quantizers.base import Side
from bnnbench.records.provenance import git_state
from bnnbench.records.store import write_json
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
        of_itself: answers that the trained network does not give in the other memory format.
        right: of a classifier, whether the trained one and the packed one are right.
    """

    answers: int
    same: int
    others: int
    layer: str
    distance: float
    of_itself: int
    right: tuple[bool, bool] | None = None

    @property
    def differs(self) -> bool:
        """Whether an answer differs."""
        return self.same < self.answers or self.others > 0


def main() -> int:
    """Compare, print, and tell whether anything is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs, and key=value of data")
    parser.add_argument("--out", type=Path, help="a JSON file of the counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    overrides = [each for each in options.runs if "=" in each]
    rows = []
    for folder in options.runs:
        if folder in overrides:
            continue
        rows.append(row := compared(Path(folder), overrides))
        print(json.dumps(row), flush=True)
    if options.out:
        facts = {"command": shlex.join(["python", *sys.argv]), "commit": git_state()}
        write_json(options.out, {**facts, "networks": rows})
    return int(any(row["without_a_tie"] for row in rows))


def compared(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The counts of one run's networks."""
    trained = bnnbench.load(folder / "checkpoints" / "last.ckpt")
    other = copy.deepcopy(trained.net)
    other.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with tempfile.TemporaryDirectory() as home:
        packed = runtime.load(bnnbench.export(trained, Path(home) / "packed.safetensors"))
    given = test_images(trained, overrides)
    found = [pair(trained.net, packed, other, images, label) for images, label in given]
    return {"run": trained.name, **counts(found), **paths(packed)}


def counts(found: list[Image]) -> dict[str, Any]:
    """Answers or boxes that differ, and how many images differ without a tie."""
    differ = [each for each in found if each.differs]
    without = [each for each in differ if not each.layer or each.distance > TIE]
    counted: dict[str, Any] = {
        "images": len(found),
        "answers": sum(each.answers for each in found),
        "same": sum(each.same for each in found),
        "only_packed": sum(each.others for each in found),
        "images_that_differ": len(differ),
        "without_a_tie": len(without),
        "furthest_tie": max((each.distance for each in differ if each.layer), default=0.0),
        "of_itself": sum(each.of_itself for each in found),
    }
    if all(each.right is not None for each in found):
        right = [sum(each.right[n] for each in found if each.right) for n in (0, 1)]
        shares = [round(100 * count / len(found), 4) for count in right]
        counted |= {"trained_accuracy": shares[0], "packed_accuracy": shares[1]}
    return counted


def paths(packed: PackedNetwork) -> dict[str, Any]:
    """How many layers take which path."""
    return {"paths": dict(Counter(layer.path for layer in runtime.report(packed)))}


def test_images(trained: Trained, overrides: list[str]) -> Iterator[tuple[Tensor, Any]]:
    """Every test image by itself, normalised, (1, C, S, S), and what it shows."""
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
    for images, truths in data.test_dataloader():
        yield from zip(images.split(1), truths, strict=True)


@torch.no_grad()
def pair(
    net: nn.Module, packed: PackedNetwork, again: nn.Module, images: Tensor, truth: Any
) -> Image:
    """What the networks say of one image."""
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
    last = again(images.contiguous(memory_format=torch.channels_last))
    if packed.task != "detection":
        own, theirs, itself = (int(each.argmax()) for each in (expected, found, last))
        right = own == int(truth), theirs == int(truth)
        return Image(1, int(own == theirs), 0, layer, away, int(own != itself), right)
    own, itself = (each.detect(y)[0] for each, y in ((net, expected), (again, last)))  # pyright: ignore
    theirs = packed.detect(found)[0]
    same, count = paired(own, theirs), len(own["labels"])
    others = len(theirs["labels"]) - same
    return Image(count, same, others, layer, away, count - paired(own, itself))


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
        known = is_high(reader.activation, value).reshape(maps.shape)
        differs = (reader.activation.codes(maps) > 0) != known
        if not found and bool(differs.any()):
            away = distance(side, x).reshape(maps.shape)[differs]
            found.append((names[reader], float(away.max())))

    stems = [step.group.stem for step in packed.plan.steps if step.group.stem is not None]
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
