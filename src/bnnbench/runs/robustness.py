"""Accuracy of trained classifiers on corrupted test sets; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnnbench.data.corrupted_set import SETS, corrupted_set
from bnnbench.records.provenance import device, git_state, versions
from bnnbench.records.schema import TWINS_TOO
from bnnbench.runs.trained import Trained, load

SCHEMA = 1
BATCH = 250


def evaluated(
    networks: Sequence[str],
    dataset: str,
    data_dir: Path,
    count: int | None,
    corruptions: Sequence[str],
    severities: Sequence[int],
    trust: Sequence[str] = (),
    check: Callable[[dict[str, Any]], None] = lambda planned: None,
) -> dict[str, Any]:
    """The content of a robustness file, without the command.

    Args:
        networks: checkpoints of runs or packed files.
        dataset: of ``SETS``; others as ``corrupted_set``.
        trust: packages whose classes a checkpoint may name.
        check: called with the content but for accuracies, before they are measured; it may refuse.

    Raises:
        ValueError: a network is a detector or of another data set.
    """
    loaded = [load(path, trust) for path in networks]
    for path, net in zip(networks, loaded, strict=True):
        _check(path, net, dataset)
    images = corrupted_set(dataset, data_dir, count, corruptions, severities)
    rows = [_described(path, net) for path, net in zip(networks, loaded, strict=True)]
    content = {
        "schema": SCHEMA,
        "dataset": dataset,
        "source": images.source,
        "images": len(images.labels),
        "of": images.total,
        "severities": list(severities),
        "networks": rows,
    }
    check(content)
    _add(rows, loaded, images.clean, images.labels, "clean")
    for name in corruptions:
        for severity in severities:
            part = images.corrupted(name, severity)
            _add(rows, loaded, part, images.labels, name)
        print(f"evaluated {name}", file=sys.stderr, flush=True)
    for row in rows:
        row["clean"] = row["accuracy"].pop("clean")[0]
    measured_by = {"device": device(torch.device("cpu")), "versions": versions()}
    return content | measured_by | {"git": git_state()}


def _check(path: str, net: Trained, dataset: str) -> None:
    trained_on = net.signature.config["dataset"]["name"]
    if net.task != "classification":
        raise ValueError(f"networks={path} is a detector: give classifiers")
    if trained_on != SETS[dataset][0]:
        fitting = [name for name, (clean, _) in SETS.items() if clean == trained_on]
        advice = f"set dataset={fitting[0]}" if fitting else f"there is {', '.join(SETS)}"
        raise ValueError(f"networks={path} was trained on {trained_on}: {advice}")


def _described(path: str, net: Trained) -> dict[str, Any]:
    config = net.signature.config
    return {
        "name": net.name,
        "file": Path(path).name,
        "fingerprint": net.signature.fingerprint,
        "method": config["quantizer"]["name"],
        "backbone": config["backbone"]["name"],
        "recipe": config["recipe"]["name"],
        "start": config["recipe"].get("start"),
        "structure": {key: config["backbone"].get(key) for key in TWINS_TOO},
        "epochs": (config.get("trainer") or {}).get("max_epochs"),  # of old packed files unknown
        "seed": config.get("seed"),
        "accuracy": {},
    }


def _add(
    rows: Sequence[dict[str, Any]],
    nets: Sequence[Trained],
    images: Tensor,
    labels: Tensor,
    name: str,
) -> None:
    for row, net in zip(rows, nets, strict=True):
        row["accuracy"].setdefault(name, []).append(accuracy(net, images, labels))


@torch.inference_mode()
def accuracy(net: Trained, images: Tensor, labels: Tensor) -> float:
    """Share of images uint8 (N, C, S, S) whose highest logit is the label's."""
    parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    hits = sum(int((net(part).argmax(1) == truth).sum()) for part, truth in parts)
    return hits / len(labels)
