"""wandb: one run a cell, grouped by sweep, and one summary run a sweep that holds its table."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

    from bnnbench.report.tables import Table


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _use_offline_without_key() -> None:
    if not _has_key():
        os.environ.setdefault("WANDB_MODE", "offline")


def run_logger(name: str, project: str, folder: str, group: str | None) -> WandbLogger:
    """The logger of one run; offline unless a key is configured or WANDB_MODE says otherwise."""
    from lightning.pytorch.loggers import WandbLogger

    _use_offline_without_key()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        name=name,
        id=name.replace("/", "_"),
        project=project,
        save_dir=folder,
        group=group,
        resume="allow",
    )


def log_summary(cfg: DictConfig, sweep_name: str, table: Table) -> None:
    """Write the sweep's table and figures into a summary run named after the sweep.

    The table is logged as ``comparison``, each PNG of the sweep's folder under its own name.
    """
    import wandb

    _use_offline_without_key()
    folder = Path(cfg.paths.sweeps_dir) / sweep_name
    folder.mkdir(parents=True, exist_ok=True)
    groups = ("quantizer", "loss", "backbone", "dataset", "recipe", "table", "scale")
    config: dict[str, Any] = {
        key: OmegaConf.to_container(cfg[key], resolve=False) for key in groups
    }
    run = wandb.init(
        project=cfg.logger.project,
        dir=folder,
        group=sweep_name,
        job_type="summary",
        name=f"table {sweep_name}",
        config=config | {"seed": cfg.seed},
    )
    try:
        rows = [list(map(str, row)) for row in table.rows]
        figures = {file.stem: wandb.Image(str(file)) for file in sorted(folder.glob("*.png"))}
        comparison = wandb.Table(columns=list(table.header), data=rows)
        run.log({"comparison": comparison, **figures})
    finally:
        run.finish()
