"""One run, from a composed config to ``result.json``."""

from __future__ import annotations

import gc
import logging
import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
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
from bnnbench.records.checkpoints import load_weights
from bnnbench.records.durable import sweep
from bnnbench.records.fallback import Start, start_of, tidy
from bnnbench.records.signature import Signature, full_config
from bnnbench.records.stamps import remember
from bnnbench.records.store import (
    last_weights,
    read_record,
    score_of,
    write_identity,
    write_json,
)
from bnnbench.runs import results, signals
from bnnbench.runs.allocator import keep_freed_memory
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.evaluation import evaluate, last_task
from bnnbench.runs.forced import finish_exchange, prepare, standing, workspace
from bnnbench.runs.loggers import as_tags, begin, opened, reached, tell
from bnnbench.runs.preflight import check_settings, check_stages
from bnnbench.runs.reuse import Run, check_data, check_owner, check_start, stamp_cache
from bnnbench.runs.run_log import About, outcome_of
from bnnbench.runs.stages import Stage, stages
from bnnbench.runs.teacher import build_teacher, check_classes

log = logging.getLogger(__name__)


@contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Leave the traceback in ``error.txt`` when the block fails; a signal is no failure."""
    file = folder / "error.txt"
    file.unlink(missing_ok=True)
    try:
        yield
    except Exception:
        signals.check()
        with suppress(OSError):  # of a full disk, which is what the failure itself says
            file.write_text(traceback.format_exc())
        raise


def execute(cfg: DictConfig, folder: Path, quiet: bool, typed: Sequence[str] = ()) -> float:
    """Train (or resume) the run of ``cfg`` in ``folder``; returns the last epoch's headline.

    ``trainer.max_epochs=0`` only counts operations and sizes, without data; it returns nan.
    ``typed`` are the overrides of the command line, which an evaluation compares with what its
    checkpoint says.
    """
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips, no device lists
    gc.collect()  # a finished job's modules live on until collected
    with recorded_failure(folder):
        check_settings(cfg)
        if not cfg.train:
            return evaluate(cfg, folder, quiet, typed)
        check_start(cfg)
        if cfg.force:
            return _forced(cfg, folder, quiet)
        check_owner(run := Run(cfg, folder))
        return _finished(run, quiet)


def _forced(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    """Run beside what stands in ``folder``, which is replaced once the new result stands."""
    beside = deepcopy(cfg)
    beside.paths.output_dir = str(workspace(folder))
    run = Run(beside, workspace(folder))
    result = standing(run)
    if result is None:
        rank_zero_only(finish_exchange)(folder)  # of a run of another config
        rank_zero_only(prepare)(run)
        score = _finished(run, quiet)
    else:
        score = score_of(result)
    rank_zero_only(finish_exchange)(folder)
    return score


def _finished(run: Run, quiet: bool) -> float:
    _sweep(run)
    return _count(run) if run.cfg.trainer.max_epochs == 0 else _train(run, quiet)


@rank_zero_only
def _sweep(run: Run) -> None:
    """Delete what dead processes were writing here when they died."""
    folders = [run.folder, *run.folder.glob("stage*_*")]
    for folder in (*folders, *(each / "checkpoints" for each in folders)):
        sweep(folder)
    sweep(stamp_cache(run.cfg).parent)


def _train(run: Run, quiet: bool) -> float:
    """All stages in turn; a finished one is not run again, a cut one goes on where it was."""
    planned = stages(run.cfg)
    if len(planned) > 1 or run.cfg.teacher.name != "none":
        check_stages(run.cfg)
    with opened(run.cfg, About(run.name, "train", as_tags(run.cfg.tags))) as loggers:
        records = _records(run, planned, quiet, loggers)
        # the run's own, not its last stage's
        whole = {"name": run.name, "fingerprint": run.fingerprint, "config": run.config}
        result = results.combined(records) | whole
        rank_zero_only(write_json)(run.folder / "result.json", result)
        tell(loggers, outcome_of(result, run.folder))
    reached(loggers, run.folder)
    for stage in planned:
        tidy(stage.folder)
    return score_of(result)


def _records(
    run: Run, planned: list[Stage], quiet: bool, loggers: dict[str, Logger]
) -> list[dict[str, Any]]:
    """What each stage has left, or leaves now."""
    records: list[dict[str, Any]] = []
    for number, stage in enumerate(planned):
        record = read_record(stage.folder / "stage.json") if stage.name else None
        if record is None or record["fingerprint"] != stage.run.fingerprint:
            before = results.place_after(records)
            record = _train_stage(stage, planned[:number], quiet, run, loggers, before)
        records.append(record)
    return records


def _train_stage(
    stage: Stage,
    earlier: list[Stage],
    quiet: bool,
    whole: Run,
    loggers: dict[str, Logger],
    before: tuple[int, int],
) -> dict[str, Any]:
    """Train a stage that begins after so many epochs and optimiser steps of its run."""
    cfg = stage.cfg
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_datamodule(cfg)
    teacher = build_teacher(cfg, {str(before.name): before.cfg for before in earlier})
    task = build_task(cfg, data.evaluates_on, teacher)
    if stage.continues:
        load_weights(task.net, last_weights(earlier[-1].folder), strict=False)
    task.signature = _signature(stage, data, whole)
    check_classes(cfg, task.signature.classes)
    if (line := told(to_dict(cfg.backbone))) is not None:
        rank_zero_only(log.info)(line)
    cost = count_operations(task.net, _input_size(cfg)).as_dict()
    name = f"{whole.name}/{cfg.paths.stage}".rstrip("/")
    start = _start(stage.folder, task.signature)
    trainer = build_trainer(cfg, stage.folder, quiet, name, loggers.values())
    check_evaluation(trainer, data)
    begin(loggers, *before, start.steps)
    for logger in loggers.values():
        logger.log_hyperparams(whole.config)
    trainer.fit(task, data, ckpt_path=start.file, weights_only=True)
    final = trainer.test if data.evaluates_on == "test" else trainer.validate
    last = final(task, data, verbose=False)[0]
    record = results.identity(stage.run, task) | {"operations": cost}
    record |= results.measured(cfg, task, data, trainer, last)
    record |= {"stage": stage.name}
    if stage.name:
        rank_zero_only(write_json)(stage.folder / "stage.json", record)
    return record


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


def _start(folder: Path, signature: Signature) -> Start:
    """Where a run or stage in ``folder`` starts, or goes on from its own undamaged checkpoint."""
    start, warnings = start_of(folder, signature)
    for warning in warnings:
        rank_zero_only(log.warning)(warning)
    if start.file is not None:
        log.info("resuming from %s", start.file)
    return start


def _count(run: Run) -> float:
    """A run of no epochs: operations and sizes only."""
    task = last_task(run.cfg)
    cost = count_operations(task.net, _input_size(run.cfg)).as_dict()
    write_json(run.folder / "result.json", results.counted(run, task, cost))
    return math.nan


def _input_size(cfg: DictConfig) -> tuple[int, int, int]:
    return cfg.dataset.in_channels, cfg.dataset.image_size, cfg.dataset.image_size
