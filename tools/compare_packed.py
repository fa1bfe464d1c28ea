"""Hold packed networks against the trained ones on a whole test set.

    python tools/compare_packed.py logs/runs/<run> ... --data-dir data --out packed.json

Each run's last checkpoint is exported and both networks classify every test image, in batches. They
may differ where floats that are summed in another order take an activation across its threshold, so
every image with another class is traced: the first layer whose codes differ, and how far from their
thresholds the values were that took the other side. How often the trained network differs from
itself, with its weights in the other memory format, is counted as well.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bnnbench
from bnnbench.layers import binary_layers
from bnnbench.records.provenance import git_state
from bnnbench.records.store import write_json
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.trained import Trained
from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.runtime.stem import Stem

BATCH = 250
LARGEST_SHARE, LARGEST_POINTS = 5e-4, 0.02  # of other classes, of accuracy in points


def main() -> None:
    """Compare the runs that are named. Exits with 1 where one breaks the rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of finished runs")
    parser.add_argument("--data-dir", type=Path, help="where the data lie, if not where they did")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    rows = []
    for folder in options.folders:
        row = compared(folder, options.data_dir)
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items() if key != "traces"))
        print("".join(f"  {trace}\n" for trace in row["traces"]), end="", flush=True)
    if options.out:
        write_json(options.out, {"git": git_state(), "networks": rows})
    if not all(row["is_within_rule"] for row in rows):
        raise SystemExit(1)


def compared(folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """What one run's networks say of its test set."""
    trained = bnnbench.load(folder / "checkpoints" / "last.ckpt")
    with tempfile.TemporaryDirectory() as home:
        file = bnnbench.export(trained, Path(home) / "packed.safetensors")
        packed = bnnbench.load(file)
    images, labels = test_set(trained, data_dir)
    last = copy.deepcopy(trained).to(memory_format=torch.channels_last)  # pyright: ignore
    nets = trained, packed, last
    found = [[classes(net, part) for net in nets] for part in images.split(BATCH)]
    own, other, again = (torch.cat(parts) for parts in zip(*found, strict=True))
    differing = (own != other).nonzero().flatten().tolist()
    accuracies = [100 * float((each == labels).double().mean()) for each in (own, other)]
    share = len(differing) / len(labels)
    return {
        "run": trained.name,
        "images": len(labels),
        "trained_accuracy": round(accuracies[0], 4),
        "packed_accuracy": round(accuracies[1], 4),
        "other_classes": len(differing),
        "other_classes_of_itself": int((own != again).sum()),
        "is_within_rule": share <= LARGEST_SHARE
        and abs(accuracies[0] - accuracies[1]) <= LARGEST_POINTS + 1e-9,
        "paths": paths(packed.net),
        "traces": [trace(trained, packed, images, image) for image in differing],
    }


def test_set(trained: Trained, data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, C, S, S) and labels (N,)."""
    config = dict(trained.signature.config)
    if data_dir is not None:
        config["dataset"] = {**config["dataset"], "data_dir": str(data_dir.resolve())}
    data = build_datamodule(OmegaConf.create(config))
    data.setup("test")
    images, labels = data.parts["test"]
    return torch.as_tensor(images), torch.as_tensor(labels)


@torch.no_grad()
def classes(net: nn.Module, images: Tensor) -> Tensor:
    """The class of each image."""
    return net(images).argmax(1)


def paths(net: nn.Module) -> dict[str, int]:
    """How many layers take which path."""
    found: dict[str, int] = {}
    for layer in bnnbench.runtime.report(net):
        found[layer.path] = found.get(layer.path, 0) + 1
    return found


@torch.no_grad()
def trace(trained: Trained, packed: Trained, images: Tensor, image: int) -> dict[str, Any]:
    """Where the codes of one image differ first, and how far those values were from the edge.

    Computed in the batch of the comparison: the order of sums may depend on its size.
    """
    first = image // BATCH * BATCH
    part, at = images[first : first + BATCH], image - first
    found: dict[str, Any] = {"image": image}
    with outputs_of_signs(trained.net) as values:
        one = trained(part)[at]
    assert isinstance(packed.net, PackedNetwork)
    with inputs_of_layers(packed.net) as inputs:
        two = packed(part)[at]
    gap = one.sort(descending=True).values
    found["gap_of_logits"] = float(gap[0] - gap[1])
    for name, (layer, x) in inputs.items():
        side = layer.activation
        codes = side.codes(x)[at] > 0
        known = ((values[name] > side.offset) ^ (side.scale < 0))[at].reshape(codes.shape)
        if (other := codes != known).any():
            edge = side.threshold.view(-1, 1, 1)
            distance = (x[at] - edge).abs()[other]
            found |= {"layer": name, "codes": int(other.sum()), "distance": float(distance.max())}
            return found
    return found | {"layer": None, "difference_of_logits": float((one - two).abs().max())}


@contextmanager
def outputs_of_signs(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What each layer's activations become while the block runs, by the layer's name."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name, layer in binary_layers(net):

        def keep(_: nn.Module, __: Any, value: Tensor, name: str = name) -> None:
            found[name] = value

        hooks.append(layer.activation_quantizer.register_forward_hook(keep))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def inputs_of_layers(net: PackedNetwork) -> Iterator[dict[str, tuple[PackedConv2d, Tensor]]]:
    """The floats that each packed layer's codes are made of, in order, by the layer's name.

    Layers do not make the codes of the next ones meanwhile, but give the floats that these are made
    of, which changes no bit.
    """
    found: dict[str, tuple[PackedConv2d, Tensor]] = {}
    names = {}
    for key, layer in net.layers.items():
        names[layer if isinstance(layer, PackedConv2d) else layer.convolution] = key
    encode, fused = PackedConv2d.encode, {PackedConv2d: PackedConv2d.fused, Stem: Stem.fused}

    def keep(layer: PackedConv2d, x: Tensor) -> Any:
        found[net.layer_names[names[layer]]] = layer, x.detach().clone()
        return encode(layer, x)

    def apart(module: Any, x: Any, *, next: Any = (), keep: bool = True, **given: Any) -> Any:
        y, _ = fused[type(module)](module, x, **given)
        return y, [layer.encode(y) for layer in next]

    PackedConv2d.encode = keep
    PackedConv2d.fused = Stem.fused = apart  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield found
    finally:
        PackedConv2d.encode = encode
        for kind, own in fused.items():
            kind.fused = own  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    main()
