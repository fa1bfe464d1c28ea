"""What a run writes down of itself: the content of ``result.json``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lightning as L
from omegaconf import DictConfig, OmegaConf

from bnnbench.backbones.structure import Structure
from bnnbench.callbacks.diagnostics import BinaryDiagnostics
from bnnbench.callbacks.history import History
from bnnbench.callbacks.statistics import WeightStatistics
from bnnbench.data.base import ImageData
from bnnbench.layers import binary_layers
from bnnbench.paths import program
from bnnbench.records import provenance
from bnnbench.records.fingerprint import choice
from bnnbench.records.schema import finite
from bnnbench.records.source import source_hash
from bnnbench.records.store import SCHEMA
from bnnbench.runs.ending import evaluation_limits, planned_epochs, training_limits
from bnnbench.runs.reuse import Run
from bnnbench.tasks.base import Task

C = TypeVar("C", bound=L.Callback)
# What a result keeps of each stage's record: the rest is the same for all stages of a run.
STAGE_KEYS = ("metrics", "epochs", "time", "config", "statistics")


def identity(run: Run, task: Task) -> dict[str, Any]:
    """Which run this is, and with which code and versions."""
    structure: Structure = task.net.structure  # pyright: ignore
    cfg = run.cfg
    names = ("quantizer", "loss", "backbone", "dataset", "recipe")
    return {
        "schema": SCHEMA,
        "name": run.name,
        "choices": {name: choice(cfg, name) for name in names} | _teacher(cfg),
        "overrides": provenance.task_overrides(),
        "seed": cfg.seed,
        "fingerprint": run.fingerprint,
        "source_hash": source_hash(run.config),
        "source_proofs": [],
        "config": run.config,
        "structure": structure.as_dict(),
        "bits": structure.quantizer.bits,
        "bases": _bases(task),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "command": shlex.join([*program().split(), *provenance.task_overrides()]),
        "tags": OmegaConf.to_container(cfg.tags),
    }


def _teacher(cfg: DictConfig) -> dict[str, str]:
    return {} if cfg.teacher.name == "none" else {"teacher": choice(cfg, "teacher")}


def _bases(task: Task) -> dict[str, int]:
    """Bases of both sides; a layer that binarizes weights alone has one of activations."""
    layers = [layer for _, layer in binary_layers(task.net)]
    return {
        "w": max((layer.weight_quantizer.bases for layer in layers), default=1),
        "a": max((layer.activation_quantizer.bases for layer in layers), default=1),
    }


def counted(run: Run, task: Task, cost: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result of a run of no epochs; ``cost`` are its operations and sizes."""
    return identity(run, task) | {
        "headline": None,
        "metrics": {"last": {}, "best": {}},
        "classes": None,
        "history": {},
        "epochs": 0,
        "planned_epochs": 0,
        "ended": None,
        "world_size": None,
        "data_stamp": None,
        "operations": dict(cost),
    }


def measured(
    cfg: DictConfig, task: Task, data: ImageData, trainer: L.Trainer, last: Mapping[str, float]
) -> dict[str, Any]:
    """What a finished training measured.

    Args:
        cfg: the run's config, or its stage's.
        task, data, trainer: after the final evaluation.
        last: metrics of that one, of the last epoch's weights.
    """
    history = _callback(trainer, History)
    if history is None:
        raise ValueError(
            "callbacks must hold bnnbench.callbacks.history.History: see callbacks=default"
        )
    statistics = _callback(trainer, WeightStatistics)
    diagnostics = _callback(trainer, BinaryDiagnostics)
    part = data.evaluates_on
    headline = f"{part}/{task.headline}"
    named = {f"{part}/{name}": None for name in task.metric_names}
    record = {
        "headline": headline,
        "metrics": {"last": named | dict(last), "best": history.best(headline)},
        "classes": classes_of(task, data),
        "history": history.columns(),
        **_extent(cfg, task, data, trainer, history),
        "statistics": statistics.as_dict() if statistics else {"layers": []},
        "world_size": trainer.world_size,
        "data_stamp": data.stamp,
        "normalisation": {"mean": list(data.spec.mean), "std": list(data.spec.std)},
        "time": {
            "wall_s": history.wall_s,
            "train_s": history.train_s,
            "cpu_s": history.cpu_s,
            "images_per_s": history.images / history.train_s if history.train_s else None,
            "train_memory_mb": history.memory_mb,
        },
        "precision": trainer.precision,
        "compiled": task.net._compiled_call_impl is not None,
        "device": provenance.device(trainer.strategy.root_device),
    }
    if task.reliability:
        record["reliability"] = task.reliability
    if diagnostics:
        record["diagnostics"] = diagnostics.as_dict()
    return finite(record)


def classes_of(task: Task, data: ImageData) -> dict[str, Any] | None:
    """Accuracy by class, where the task tells it."""
    accuracy = task.class_accuracy
    if accuracy is None:
        return None
    names = data.class_names or [str(label) for label in range(len(accuracy))]
    return {"names": names, "accuracy": accuracy}


def _extent(
    cfg: DictConfig, task: Task, data: ImageData, trainer: L.Trainer, history: History
) -> dict[str, Any]:
    """How long a training was and how much of the data it saw; the mean of its epochs if less."""
    batches = len(data.train_dataloader())  # the trainer forgets its own after training
    training = training_limits(trainer, history, cfg, batches)
    evaluation = evaluation_limits(trainer, data.evaluates_on, task.eval_images == data.eval_images)
    partial = bool(training) and (history.cut or trainer.num_training_batches < batches)
    seen = round(history.images / max(len(history.epochs), 1))
    return {
        "epochs": len(history.epochs),
        "planned_epochs": planned_epochs(cfg),
        "ended": "; ".join(training + evaluation) or None,
        "train_images": seen if partial else data.train_images,
        "test_images": task.eval_images,
    }


def combined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of a run's stages: the last one's, with all epochs, all time and ``stages``."""
    if len(records) == 1 and records[0]["stage"] is None:
        return {key: value for key, value in records[0].items() if key != "stage"}
    result = {key: value for key, value in records[-1].items() if key != "stage"}
    parts = [{"name": r["stage"], **{key: r[key] for key in STAGE_KEYS}} for r in records]
    seconds = ("wall_s", "train_s", "cpu_s")
    planned = [record["planned_epochs"] for record in records]
    time = result["time"] | {key: _sum([r["time"].get(key) for r in records]) for key in seconds}
    memory = [r["time"].get("train_memory_mb") for r in records]
    time["train_memory_mb"] = None if None in memory else max(memory)
    best = dict(result["metrics"]["best"])
    if "epoch" in best:  # the last stage's own, counted through as the history is
        best["epoch"] += sum(record["epochs"] for record in records[:-1])
    return result | {
        "metrics": result["metrics"] | {"best": best},
        "stages": parts,
        "history": _joined([record["history"] for record in records]),
        "epochs": sum(record["epochs"] for record in records),
        "planned_epochs": None if None in planned else sum(planned),
        "ended": next((record["ended"] for record in records if record["ended"]), None),
        "time": time,
    }


def _sum(values: Sequence[float | None]) -> float | None:
    """None where a part is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def place_after(records: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Epochs and steps of a whole run before the stage that follows stages of these records.

    A stage's final evaluation has a step of its own. Where steps are not known an epoch is one.
    """
    epochs = [list(record["history"].get("epoch") or []) for record in records]
    known = [record["history"].get("step") for record in records]
    last = [(step or epoch or [-1])[-1] for step, epoch in zip(known, epochs, strict=True)]
    return sum(map(len, epochs)), sum(int(step) + 2 for step in last)


def _joined(histories: list[dict[str, list[float]]]) -> dict[str, list[float | None]]:
    """One history, epochs and steps counted through; None where a stage has not the metric."""
    names = dict.fromkeys(name for history in histories for name in history)
    joined: dict[str, list[float | None]] = {name: [] for name in names}
    for number, history in enumerate(histories):
        before, length = len(joined["epoch"]), len(history["epoch"])
        for name in names:
            joined[name] += history.get(name, [None] * length)
        joined["epoch"][before:] = range(before, before + length)
        if "step" in history:
            _, first = place_after([{"history": each} for each in histories[:number]])
            joined["step"][before:] = [first + step for step in history["step"]]
    return joined


def _callback(trainer: L.Trainer, kind: type[C]) -> C | None:
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
