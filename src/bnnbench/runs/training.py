"""A run while it trains: its stages in turn, of which a finished one is not trained again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from bnnbench.backbones.stems import told
from bnnbench.checks.options import check_evaluation
from bnnbench.config import to_dict
from bnnbench.data.base import ImageData
from bnnbench.metrics import count_operations
from bnnbench.records import provenance
from bnnbench.records.checkpoints import load_weights
from bnnbench.records.fallback import Start, start_of
from bnnbench.records.signature import Signature, full_config
from bnnbench.records.stamps import remember
from bnnbench.records.store import last_weights, read_record, write_identity, write_json
from bnnbench.runs import continued, results
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.loggers import begin
from bnnbench.runs.peers import watched
from bnnbench.runs.reuse import Run, check_data, stamp_cache
from bnnbench.runs.stages import Stage
from bnnbench.runs.teacher import build_teacher, check_classes
from bnnbench.runs.told import beginning, later_epochs
from bnnbench.runs.twin import start_from, weights_of
from bnnbench.tasks.base import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What the stages of a run share.

    Attributes:
        run: the whole.
        stages: of it, in order; one without a name where it has none.
        quiet: without a bar.
        loggers: that are told, by name.
        twin: the run whose weights the first stage starts from, finished unless that one has begun.
    """

    run: Run
    stages: list[Stage]
    quiet: bool
    loggers: dict[str, Logger]
    twin: Run | None = None


def trained(training: Training) -> list[dict[str, Any]]:
    """What each stage has left, or leaves now; a cut one goes on where it was."""
    records: list[dict[str, Any]] = []
    for number, stage in enumerate(training.stages):
        record = read_record(stage.folder / "stage.json") if stage.name else None
        if record is None or record["fingerprint"] != stage.run.fingerprint:
            record = _trained(training, number, results.place_after(records))
        records.append(record)
    return records


def _trained(training: Training, number: int, before: tuple[int, int]) -> dict[str, Any]:
    """Train a stage that begins after so many epochs and optimiser steps of its run."""
    stage, whole = training.stages[number], training.run
    cfg = stage.cfg
    origin = continued.origin_of(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_datamodule(cfg)
    task = _task(training, number, data)
    cost = count_operations(task.net, input_size(cfg)).as_dict()
    start, facts = _start(stage, task, origin)
    if training.twin is not None and number == 0 and start.file is None:
        start_from(task.net, weights_of(training.twin), fresh=cfg.quantizer.name != "fp32")
    trainer = _trainer(training, number)
    check_evaluation(trainer, data)
    begin(training.loggers, *before, start.steps)
    for logger in training.loggers.values():  # once they know whether they go on
        logger.log_hyperparams(whole.config)
    device = provenance.device(trainer.strategy.root_device)
    rank_zero_only(print)(beginning(stage, whole, data, start.epochs, device), flush=True)
    with watched(trainer):
        trainer.fit(task, data, ckpt_path=start.file, weights_only=True)
        final = trainer.test if data.evaluates_on == "test" else trainer.validate
        last = final(task, data, verbose=False)[0]
    record = results.identity(stage.run, task) | {"operations": cost}
    record |= results.measured(cfg, task, data, trainer, last)
    record |= {"stage": stage.name} | facts
    if stage.name:
        rank_zero_only(write_json)(stage.folder / "stage.json", record)
    return record


def _task(training: Training, number: int, data: ImageData) -> Task:
    """Network, loss and recipe of a stage with the weights that it begins with, signed."""
    stage, earlier = training.stages[number], training.stages[:number]
    cfg = stage.cfg
    teacher = build_teacher(cfg, {str(before.name): before.cfg for before in earlier})
    task = build_task(cfg, data.evaluates_on, teacher)
    if stage.continues:
        load_weights(task.net, last_weights(earlier[-1].folder), strict=False)
    task.signature = _signature(stage, data, training.run)
    check_classes(cfg, task.signature.classes)
    if (line := told(to_dict(cfg.backbone))) is not None:
        rank_zero_only(log.info)(line)
    return task


def _trainer(training: Training, number: int) -> L.Trainer:
    stage = training.stages[number]
    name = f"{training.run.name}/{stage.cfg.paths.stage}".rstrip("/")
    loggers, later = training.loggers.values(), later_epochs(training.stages[number + 1 :])
    return build_trainer(stage.cfg, stage.folder, training.quiet, name, loggers, later)


def _signature(stage: Stage, data: ImageData, whole: Run) -> Signature:
    """Read the data, take the run's folder for them, and say whose the checkpoints will be."""
    data.prepare_data()
    data.setup("fit")
    rank_zero_only(remember)(stage.run.dataset, data.stamp, stamp_cache(whole.cfg))
    if stage.run.dataset == whole.dataset:  # a stage may have data of its own
        check_data(whole.folder, data.stamp)
        identity = {"name": whole.name, "fingerprint": whole.fingerprint, "data_stamp": data.stamp}
        rank_zero_only(write_identity)(whole.folder, identity)
    return Signature(
        name=whole.name,
        fingerprint=stage.run.fingerprint,
        stage=stage.name,
        config=full_config(stage.cfg),
        data_stamp=data.stamp,
        classes=list(data.class_names),
        mean=list(data.spec.mean),
        std=list(data.spec.std),
    )


def _start(
    stage: Stage, task: Task, origin: continued.Origin | None
) -> tuple[Start, dict[str, Any]]:
    """Where a stage starts, or goes on, and what its result says of a run that it continues."""
    assert task.signature is not None
    start = _resumed(stage.folder, task.signature)
    if origin is None:
        return start, {}
    epochs = stage.cfg.trainer.max_epochs
    found = origin.described(task, epochs)
    rank_zero_only(log.info)(continued.told(found, epochs))
    if start.file is None:
        start = continued.begin(origin, task, epochs, stage.folder)
    return start, {"continued": found}


def _resumed(folder: Path, signature: Signature) -> Start:
    """Where a run or stage goes on from its own undamaged checkpoint, if it has one."""
    start, warnings = start_of(folder, signature)
    for warning in warnings:
        rank_zero_only(log.warning)(warning)
    if start.file is not None:
        log.info("resuming from %s", start.file)
    return start


def input_size(cfg: DictConfig) -> tuple[int, int, int]:
    """Channels, height and width of an image."""
    return cfg.dataset.in_channels, cfg.dataset.image_size, cfg.dataset.image_size
