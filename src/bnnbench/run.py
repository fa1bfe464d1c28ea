"""One run, from a composed config to ``result.json``."""

from __future__ import annotations

import gc
import logging
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig, OmegaConf

from bnnbench import provenance
from bnnbench.allocator import keep_freed_memory
from bnnbench.blocks import Structure
from bnnbench.callbacks.compilation import Compilation
from bnnbench.callbacks.history import History
from bnnbench.checkpoints import BadCheckpoint, load_weights
from bnnbench.config import backbone_from_config, quantizer_from_config, target, to_dict
from bnnbench.data import ImageDataModule
from bnnbench.losses import task_loss
from bnnbench.metrics import count_operations
from bnnbench.sweep.fingerprint import fingerprint, fingerprinted, run_name
from bnnbench.sweep.store import SCHEMA, write_json
from bnnbench.tasks.classification import Classification
from bnnbench.tasks.recipe import Recipe

log = logging.getLogger(__name__)


def build_datamodule(cfg: DictConfig) -> ImageDataModule:
    """The data of ``cfg.dataset``."""
    return target(to_dict(cfg.dataset))(channels_last=bool(cfg.channels_last))


def build_task(cfg: DictConfig, evaluates_on: str = "test") -> Classification:
    """Network, loss and recipe of ``cfg``, started from ``cfg.init_from`` where that is set."""
    net = backbone_from_config(cfg.backbone, quantizer_from_config(cfg.quantizer))
    if cfg.init_from is not None:
        load_weights(net, cfg.init_from, strict=False)
    loss = task_loss("classification", cfg.loss.label_smoothing)
    plain = to_dict(cfg.recipe)
    recipe = Recipe(**{k: v for k, v in plain.items() if k not in ("name", "epochs", "batch_size")})
    task = Classification(net, loss, recipe, cfg.dataset.num_classes, evaluates_on)
    layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
    return task.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


def build_trainer(cfg: DictConfig, folder: Path, quiet: bool) -> L.Trainer:
    """The trainer of ``cfg`` with the callbacks and the logger of their groups."""
    nodes = [to_dict(node) for node in (cfg.callbacks or {}).values() if node]
    callbacks = [Compilation(cfg.compile), *(target(node)() for node in nodes)]
    if quiet:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    options = to_dict(cfg.trainer)
    options["enable_progress_bar"] = not quiet and options["enable_progress_bar"]
    if options["precision"] == "auto":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        options["precision"] = "bf16-mixed" if fast else "32-true"
    node = to_dict(cfg.logger)
    logger = target(node | {"name": run_name(cfg)})() if "_target_" in node else False
    return target(options)(callbacks=callbacks, logger=logger, default_root_dir=folder)


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


def last_checkpoint(folder: Path, force: bool) -> str | None:
    """Where an interrupted run goes on; with ``force`` everything the folder holds is dropped."""
    last = folder / "checkpoints" / "last.ckpt"
    if force:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "result.json").unlink(missing_ok=True)
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
    """Train (or resume) the run of ``cfg`` in ``folder``; returns the last epoch's accuracy."""
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips, no device lists
    gc.collect()  # a finished job's modules live on until collected
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    try:
        with recorded_failure(folder):
            return _train(cfg, folder, quiet) if cfg.train else _evaluate(cfg, folder, quiet)
    finally:
        if cfg.logger is not None and cfg.logger.name == "wandb":
            import wandb

            wandb.finish()


def _train(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    data = build_datamodule(cfg)
    task = build_task(cfg, data.evaluates_on)
    cost = count_operations(task.net, _input_size(cfg)).as_dict()
    trainer = build_trainer(cfg, folder, quiet)
    history = _history(trainer)
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(fingerprinted(cfg))
    trainer.fit(task, data, ckpt_path=last_checkpoint(folder, cfg.force))
    if trainer.interrupted:
        raise KeyboardInterrupt
    evaluate = trainer.test if data.evaluates_on == "test" else trainer.validate
    last = evaluate(task, data, verbose=False)[0]
    if trainer.is_global_zero:
        result = _result(cfg, task, data, trainer, history, last) | {"operations": cost}
        write_json(folder / "result.json", result)
    return last[f"{data.evaluates_on}/acc"]


def _history(trainer: L.Trainer) -> History:
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    found = [callback for callback in callbacks if isinstance(callback, History)]
    if not found:
        raise ValueError(
            "callbacks must hold bnnbench.callbacks.history.History: see callbacks=default"
        )
    return found[0]


def _evaluate(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    if cfg.ckpt_path is None:
        raise ValueError("train=false evaluates a checkpoint: set ckpt_path=<file>")
    data = build_datamodule(cfg)
    task = build_task(cfg)
    load_weights(task.net, cfg.ckpt_path)
    trainer = build_trainer(cfg, folder, quiet)
    metrics = trainer.test(task, data, verbose=False)[0]
    record = {"checkpoint": Path(cfg.ckpt_path).name, "images": data.test_images, **metrics}
    write_json(folder / "evaluation.json", record)
    print(f"{cfg.ckpt_path}: {100 * metrics['test/acc']:.2f} % on {data.test_images} test images")
    return metrics["test/acc"]


def _input_size(cfg: DictConfig) -> tuple[int, int, int]:
    return cfg.dataset.in_channels, cfg.dataset.image_size, cfg.dataset.image_size


def _result(
    cfg: DictConfig,
    task: Classification,
    data: ImageDataModule,
    trainer: L.Trainer,
    history: History,
    last: Mapping[str, float],
) -> dict[str, Any]:
    """Everything about a finished run but its operations."""
    structure: Structure = task.net.structure  # pyright: ignore
    sides = structure.quantizer.weight((1, 1, 1, 1)), structure.quantizer.activation(1)
    metric = f"{data.evaluates_on}/acc"
    names = ("quantizer", "loss", "backbone", "dataset", "recipe")
    return {
        "schema": SCHEMA,
        "name": run_name(cfg),
        "choices": {name: cfg[name].name for name in names},
        "overrides": provenance.task_overrides(),
        "seed": cfg.seed,
        "fingerprint": fingerprint(cfg),
        "source_hash": provenance.source_hash(to_dict(cfg.quantizer)),
        "config": fingerprinted(cfg),
        "structure": structure.as_dict(),
        "bits": {"w": sides[0].bits, "a": sides[1].bits},
        "bases": {"w": sides[0].bases, "a": sides[1].bases},
        "metrics": {"last": dict(last), "best": history.best(metric)},
        "history": history.columns(),
        "epochs": len(history.epochs),
        "train_images": data.train_images,
        "test_images": len(data.parts[data.evaluates_on][1]),
        "time": {
            "wall_s": history.wall_s,
            "train_s": history.train_s,
            "images_per_s": history.images / history.train_s,
            "peak_memory_mb": provenance.peak_memory_mb(),
        },
        "precision": trainer.precision,
        "compiled": task.net._compiled_call_impl is not None,
        "versions": provenance.versions(),
        "device": provenance.device(trainer.strategy.root_device),
        "git": provenance.git_state(),
        "command": " ".join(["python src/train.py", *provenance.task_overrides()]),
        "tags": OmegaConf.to_container(cfg.tags),
    }
