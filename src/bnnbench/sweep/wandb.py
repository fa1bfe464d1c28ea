"""One summary run of wandb a sweep, which holds its table and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bnnbench.runs.wandb import choose_mode, survives

if TYPE_CHECKING:
    from bnnbench.report.tables import Table


def log_summary(cfg: DictConfig, sweep_name: str, table: Table) -> None:
    """Write the sweep's table and figures into a summary run named after the sweep.

    The table is logged as ``comparison``, each PNG of the sweep's folder under its own name. A
    wandb that breaks leaves the sweep without it, with a warning.
    """
    folder = Path(cfg.paths.sweeps_dir) / sweep_name
    folder.mkdir(parents=True, exist_ok=True)
    choose_mode(folder)
    survives(lambda: _log(cfg, sweep_name, table, folder))


def _log(cfg: DictConfig, sweep_name: str, table: Table, folder: Path) -> None:
    import wandb

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
