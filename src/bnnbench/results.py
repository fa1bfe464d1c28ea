"""What a run writes down of itself: the content of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import lightning as L
from omegaconf import DictConfig, OmegaConf

from bnnbench.blocks import Structure
from bnnbench.callbacks.history import History
from bnnbench.callbacks.statistics import WeightStatistics
from bnnbench.config import to_dict
from bnnbench.data.base import ImageData
from bnnbench.records import provenance
from bnnbench.records.fingerprint import choice, fingerprint, fingerprinted, run_name
from bnnbench.records.store import SCHEMA
from bnnbench.tasks.base import Task

C = TypeVar("C", bound=L.Callback)
# Of a stage's record: the rest is the same for all stages of a run.
STAGE_KEYS = ("metrics", "epochs", "time", "config", "statistics")


def identity(cfg: DictConfig, task: Task) -> dict[str, Any]:
    """Which run this is, and with which code and versions."""
    structure: Structure = task.net.structure  # pyright: ignore
    sides = structure.quantizer.weight((1, 1, 1, 1)), structure.quantizer.activation(1)
    names = ("quantizer", "loss", "backbone", "dataset", "recipe")
    return {
        "schema": SCHEMA,
        "name": run_name(cfg),
        "choices": {name: choice(cfg, name) for name in names} | _teacher(cfg),
        "overrides": provenance.task_overrides(),
        "seed": cfg.seed,
        "fingerprint": fingerprint(cfg),
        "source_hash": provenance.source_hash(to_dict(cfg.quantizer)),
        "config": fingerprinted(cfg),
        "structure": structure.as_dict(),
        "bits": structure.quantizer.bits,
        "bases": {"w": sides[0].bases, "a": sides[1].bases},
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "command": " ".join(["python src/train.py", *provenance.task_overrides()]),
        "tags": OmegaConf.to_container(cfg.tags),
    }


def _teacher(cfg: DictConfig) -> dict[str, str]:
    return {} if cfg.teacher.name == "none" else {"teacher": choice(cfg, "teacher")}


def measured(
    task: Task, data: ImageData, trainer: L.Trainer, last: Mapping[str, float]
) -> dict[str, Any]:
    """What a finished training measured; ``last`` are the metrics of the last epoch's weights."""
    history = _callback(trainer, History)
    if history is None:
        raise ValueError(
            "callbacks must hold bnnbench.callbacks.history.History: see callbacks=default"
        )
    statistics = _callback(trainer, WeightStatistics)
    best = history.best(f"{data.evaluates_on}/{task.headline}")
    return {
        "metrics": {"last": dict(last), "best": best},
        "history": history.columns(),
        "epochs": len(history.epochs),
        "statistics": statistics.as_dict() if statistics else {"layers": []},
        "train_images": data.train_images,
        "test_images": data.eval_images,
        "time": {
            "wall_s": history.wall_s,
            "train_s": history.train_s,
            "images_per_s": history.images / history.train_s,
            "peak_memory_mb": provenance.peak_memory_mb(),
        },
        "precision": trainer.precision,
        "compiled": task.net._compiled_call_impl is not None,
        "device": provenance.device(trainer.strategy.root_device),
    }


def combined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of a run's stages: the last one's, with all epochs, all time and ``stages``."""
    if len(records) == 1 and records[0]["stage"] is None:
        return {key: value for key, value in records[0].items() if key != "stage"}
    result = {key: value for key, value in records[-1].items() if key != "stage"}
    parts = [{"name": r["stage"], **{key: r[key] for key in STAGE_KEYS}} for r in records]
    seconds = ("wall_s", "train_s")
    time = result["time"] | {key: sum(r["time"][key] for r in records) for key in seconds}
    best = dict(result["metrics"]["best"])
    if "epoch" in best:  # of the last stage; counted through, as the history is
        best["epoch"] += sum(record["epochs"] for record in records[:-1])
    return result | {
        "metrics": result["metrics"] | {"best": best},
        "stages": parts,
        "history": _joined([record["history"] for record in records]),
        "epochs": sum(record["epochs"] for record in records),
        "time": time,
    }


def _joined(histories: list[dict[str, list[float]]]) -> dict[str, list[float | None]]:
    """One history, the epochs counted through; a metric that a stage has not is None there."""
    names = dict.fromkeys(name for history in histories for name in history)
    joined: dict[str, list[float | None]] = {name: [] for name in names}
    for history in histories:
        before, length = len(joined["epoch"]), len(history["epoch"])
        for name in names:
            joined[name] += history.get(name, [None] * length)
        joined["epoch"][before:] = range(before, before + length)
    return joined


def _callback(trainer: L.Trainer, kind: type[C]) -> C | None:
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
