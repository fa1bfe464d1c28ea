"""Loggers of a run, and how a finished run reaches one that was switched on later."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from bnnbench.config import target, to_dict
from bnnbench.records.store import mark_logged
from bnnbench.runs.metrics_file import MetricsFile
from bnnbench.runs.wandb import RunLogger, choose_mode, survives


def csv_logger(name: str, folder: str) -> MetricsFile:
    """``metrics.csv`` in the run's own folder, wherever that is; ``name`` is not needed there."""
    return MetricsFile(folder)


def wandb_logger(name: str, project: str, folder: str, group: str | None) -> RunLogger:
    """The logger of one run; online with a key and a server, unless WANDB_MODE says otherwise."""
    choose_mode(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return RunLogger(
        name=name,
        id=name.replace("/", "_"),
        project=project,
        save_dir=folder,
        group=group,
        resume="allow",
    )


def build_logger(cfg: DictConfig, name: str) -> Logger | None:
    """The logger that ``cfg.logger`` describes; None where there is none."""
    node = to_dict(cfg.logger)
    return target(node | {"name": name})() if "_target_" in node else None


def replay(cfg: DictConfig, folder: Path, result: dict[str, Any]) -> None:
    """Give a finished run's config and history to a logger that it has not reached."""
    logger = build_logger(cfg, result["name"])
    if logger is None:
        return
    logger.log_hyperparams(result["config"])
    history = result["history"]
    for step, epoch in enumerate(history.get("epoch") or []):
        row = {name: column[step] for name, column in history.items() if name != "epoch"}
        known = {name: value for name, value in row.items() if value is not None}
        logger.log_metrics(known | {"epoch": epoch}, step=step)
    last = {k: value for k, value in result["metrics"]["last"].items() if value is not None}
    logger.log_metrics(last, step=len(history.get("epoch") or []))
    logger.finalize("success")
    mark_logged(folder, cfg.logger.name)
    finish(cfg)


def finish(cfg: DictConfig) -> None:
    """Close a wandb run: the next one of this process would write into it."""
    if cfg.logger is not None and cfg.logger.name == "wandb":
        import wandb

        if not survives(wandb.finish):
            with suppress(Exception):
                wandb.teardown()
            # the next run would write into this one, and ask its dead process
            wandb.run = None
            os.environ.pop("WANDB_SERVICE", None)
