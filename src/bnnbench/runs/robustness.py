"""Accuracy of trained classifiers on corrupted test sets; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
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
    for row, share in zip(rows, _accuracies(loaded, images.clean, images.labels), strict=True):
        row["clean"] = share
    for name in corruptions:
        for severity in severities:
            shares = _accuracies(loaded, partial(images.corrupted, name, severity), images.labels)
            for row, share in zip(rows, shares, strict=True):
                row["accuracy"].setdefault(name, []).append(share)
        print(f"evaluated {name}", file=sys.stderr, flush=True)
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


@torch.inference_mode()
def _accuracies(
    nets: Sequence[Trained], images: Callable[[slice], Tensor], labels: Tensor
) -> list[float]:
    """Shares of images uint8 (N, C, S, S), got in batches, whose highest logit is the label's."""
    hits = [0] * len(nets)
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        batch, truth = images(part), labels[part]
        for number, net in enumerate(nets):
            hits[number] += int((net(batch).argmax(1) == truth).sum())
    return [count / len(labels) for count in hits]
