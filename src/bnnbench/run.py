"""One run, from a composed config to ``result.json``."""

from __future__ import annotations

import gc
import logging
import math
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from bnnbench import results
from bnnbench.allocator import keep_freed_memory
from bnnbench.build import build_datamodule, build_task, build_trainer
from bnnbench.config import load_option
from bnnbench.metrics import count_operations
from bnnbench.preflight import check_stages
from bnnbench.records.checkpoints import BadCheckpoint, load_weights
from bnnbench.records.fingerprint import fingerprint, fingerprinted, run_name
from bnnbench.records.store import headline_key, last_weights, read_record, write_json
from bnnbench.stages import Stage, stages
from bnnbench.tasks.base import Task
from bnnbench.teacher import build_teacher

log = logging.getLogger(__name__)


@contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Leave the traceback in ``error.txt`` when the block fails; Ctrl-C is no failure."""
    file = folder / "error.txt"
    file.unlink(missing_ok=True)
    try:
        yield
    except Exception:
        file.write_text(traceback.format_exc())
        raise


def last_checkpoint(folder: Path) -> str | None:
    """Where an interrupted run or stage in ``folder`` goes on."""
    last = last_weights(folder)
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadCheckpoint(
            f"{last} is damaged ({error}); delete it, or run with force=true"
        ) from error
    log.info("resuming from %s", last)
    return str(last)


def execute(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    """Train (or resume) the run of ``cfg`` in ``folder``; returns the last epoch's headline.

    ``trainer.max_epochs=0`` only counts operations and sizes, without data; it returns nan.
    """
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips, no device lists
    gc.collect()  # a finished job's modules live on until collected
    try:
        with recorded_failure(folder):
            if not cfg.train:
                return _evaluate(cfg, folder, quiet)
            if cfg.force:
                _clear(folder)
            if cfg.trainer.max_epochs == 0:
                return _count(cfg, folder)
            return _train(cfg, folder, quiet)
    finally:
        if cfg.logger is not None and cfg.logger.name == "wandb":
            import wandb

            wandb.finish()


def _clear(folder: Path) -> None:
    for checkpoints in (folder / "checkpoints", *folder.glob("stage*_*")):
        shutil.rmtree(checkpoints, ignore_errors=True)
    (folder / "result.json").unlink(missing_ok=True)


def _train(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    """All stages in turn; a finished one is not run again, a cut one goes on where it was."""
    records: list[dict[str, Any]] = []
    earlier: list[Stage] = []
    planned = stages(cfg)
    if len(planned) > 1 or cfg.teacher.name != "none":
        check_stages(cfg)
    for stage in planned:
        record = read_record(stage.folder / "stage.json") if stage.name else None
        if record is None or record["fingerprint"] != fingerprint(stage.cfg):
            record = _train_stage(stage, earlier, quiet, run_name(cfg))
        records.append(record)
        earlier.append(stage)
    # the run's own, not its last stage's
    whole = {"name": run_name(cfg), "fingerprint": fingerprint(cfg), "config": fingerprinted(cfg)}
    result = results.combined(records) | whole
    rank_zero_only(write_json)(folder / "result.json", result)
    return result["metrics"]["last"][headline_key(result["metrics"]["last"]) or ""]


def _train_stage(stage: Stage, earlier: list[Stage], quiet: bool, name: str) -> dict[str, Any]:
    cfg = stage.cfg
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_datamodule(cfg)
    teacher = build_teacher(cfg, {str(before.name): before.cfg for before in earlier})
    task = build_task(cfg, data.evaluates_on, teacher)
    if stage.continues:
        load_weights(task.net, last_weights(earlier[-1].folder), strict=False)
    cost = count_operations(task.net, _input_size(cfg)).as_dict()
    trainer = build_trainer(cfg, stage.folder, quiet, f"{name}/{cfg.paths.stage}".rstrip("/"))
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(fingerprinted(cfg))
    trainer.fit(task, data, ckpt_path=last_checkpoint(stage.folder))
    if trainer.interrupted:
        raise KeyboardInterrupt
    evaluate = trainer.test if data.evaluates_on == "test" else trainer.validate
    last = evaluate(task, data, verbose=False)[0]
    record = results.identity(cfg, task) | {"operations": cost}
    record |= results.measured(task, data, trainer, last)
    record |= {"stage": stage.name}
    if stage.name:
        rank_zero_only(write_json)(stage.folder / "stage.json", record)
    return record


def _count(cfg: DictConfig, folder: Path) -> float:
    """A run of no epochs: operations and sizes only."""
    task = _last_task(cfg)
    cost = count_operations(task.net, _input_size(cfg)).as_dict()
    empty = {"metrics": {"last": {}, "best": {}}, "history": {}, "epochs": 0}
    write_json(folder / "result.json", results.identity(cfg, task) | {"operations": cost} | empty)
    return math.nan


def _last_task(cfg: DictConfig) -> Task:
    """What the last stage trains, without what only training needs: loss terms and a teacher."""
    last = deepcopy(stages(cfg)[-1].cfg)
    last.teacher = load_option("teacher", "none", {})
    OmegaConf.update(last, "loss.terms", {}, merge=False)
    return build_task(last)


def _evaluate(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    if cfg.ckpt_path is None:
        raise ValueError("train=false evaluates a checkpoint: set ckpt_path=<file>")
    data = build_datamodule(cfg)
    task = _last_task(cfg)
    load_weights(task.net, cfg.ckpt_path)
    trainer = build_trainer(cfg, folder, quiet)
    metrics = trainer.test(task, data, verbose=False)[0]
    record = {"checkpoint": Path(cfg.ckpt_path).name, "images": data.test_images, **metrics}
    write_json(folder / "evaluation.json", record)
    score = metrics[f"test/{task.headline}"]
    print(f"{cfg.ckpt_path}: {100 * score:.2f} % on {data.test_images} test images")
    return score


def _input_size(cfg: DictConfig) -> tuple[int, int, int]:
    return cfg.dataset.in_channels, cfg.dataset.image_size, cfg.dataset.image_size
