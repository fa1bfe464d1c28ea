"""What an evaluation found: ``evaluation.json``, and the same in lines for a person."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from bnnbench.data.base import ImageData
from bnnbench.records.fingerprint import choice
from bnnbench.records.schema import finite
from bnnbench.records.signature import Signature
from bnnbench.records.store import write_json
from bnnbench.runs.ending import evaluation_limits
from bnnbench.runs.results import classes_of
from bnnbench.runs.reuse import differs, mark_of
from bnnbench.runtime.format import is_packed
from bnnbench.tasks.base import Task

SHARES = ("acc", "top5", "map", "coco_map")  # which are told in percent
MOST_CLASSES = 20  # that are told; of more those that are recognised least


@rank_zero_only
def write_down(
    cfg: DictConfig,
    signature: Signature | None,
    task: Task,
    data: ImageData,
    trainer: L.Trainer,
    metrics: Mapping[str, float],
    folder: Path,
) -> None:
    """Write the record of an evaluation and print what is in it.

    Args:
        cfg: the config that was evaluated.
        signature: whose the checkpoint is, where it says so.
        task, data, trainer: after the evaluation.
        metrics: what it found.
        folder: where the record goes.
    """
    whole = task.eval_images == data.test_images
    classes = classes_of(task, data)
    record: dict[str, Any] = {
        "checkpoint": Path(cfg.ckpt_path).name,
        "packed": is_packed(cfg.ckpt_path),
        "images": task.eval_images,
        "dataset": choice(cfg, "dataset"),
        "run": signature.name if signature else None,
        "data_stamp": data.stamp,
        "limits": evaluation_limits(trainer, "test", whole),
        "classes": classes,
    }
    file = _record_file(folder, data.stamp)
    write_json(file, record | finite(dict(metrics)))
    score = 100 * metrics[f"test/{task.headline}"]
    images = f"{task.eval_images}{'' if whole else f' of {data.test_images}'} test images"
    print(f"{cfg.ckpt_path}: {score:.2f} % on {images} of {record['dataset']}")
    values = {name.removeprefix("test/"): value for name, value in metrics.items()}
    print(", ".join(_in_words(name, v) for name, v in values.items() if "/" not in name))
    by_class = {name.removeprefix("ap/"): v for name, v in values.items() if "/" in name}
    if classes is not None:
        by_class = dict(zip(classes["names"], classes["accuracy"], strict=True))
    if by_class:
        print("".join(_of_classes(by_class)))
    print(f"written to {file}")
    if signature and signature.data_stamp not in (None, data.stamp):
        print("these are not the data it was trained on: other files of the same name")


def _record_file(folder: Path, stamp: str) -> Path:
    """Where an evaluation is written: beside one of the same checkpoint on other data."""
    file = folder / "evaluation.json"
    other = differs(_stamp_in(file), stamp)
    return file.with_name(f"evaluation_data{mark_of(stamp)}.json") if other else file


def _stamp_in(file: Path) -> str | None:
    """The data of an evaluation that stands there; None where it does not say, or is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["data_stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_words(name: str, value: float) -> str:
    return f"{name} {100 * value:.2f} %" if name in SHARES else f"{name} {value:.4g}"


def _of_classes(values: Mapping[str, float | None]) -> Iterator[str]:
    """A line of each class and its share, or of the lowest ones where there are many."""
    known = {name: v for name, v in values.items() if v is not None and math.isfinite(v)}
    if len(known) > MOST_CLASSES:
        lowest = sorted(known, key=lambda name: known[name])[:MOST_CLASSES]
        yield f"the lowest {MOST_CLASSES} of {len(known)} classes: "
        known = {name: known[name] for name in lowest}
    else:
        yield "by class: "
    yield ", ".join(f"{name} {100 * value:.1f} %" for name, value in known.items())
