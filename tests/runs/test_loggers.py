"""Loggers: where they write, and that a finished run reaches one that was switched on later."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from bnnbench.records.store import read_result
from bnnbench.runs import run
from bnnbench.runs.loggers import replay
from bnnbench.runs.reuse import Run, needs_replay, reused

Compose = Callable[..., DictConfig]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_metrics_lie_in_the_run_s_own_folder(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "logger=csv", "trainer.max_epochs=2")
    folder = Path(cfg.paths.output_dir)  # no folder of that name among the runs
    run.execute(cfg, folder, quiet=True)
    epochs = {row["epoch"] for row in rows(folder / "metrics.csv") if row["test/acc"]}
    assert {"0", "1"} <= epochs
    assert not needs_replay(Run(cfg, folder))


def test_a_finished_run_reaches_a_logger_from_its_history(
    compose: Compose, short: list[str]
) -> None:
    cfg = compose(*short)
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    later = compose(*short, "logger=csv")
    assert needs_replay(Run(later, folder))
    assert not needs_replay(Run(cfg, folder))  # logger=none needs nothing
    result = read_result(folder) or {}
    replay(later, folder, result)
    found = [float(row["test/acc"]) for row in rows(folder / "metrics.csv") if row["test/acc"]]
    assert found == [*result["history"]["test/acc"], result["metrics"]["last"]["test/acc"]]
    assert not needs_replay(Run(later, folder))
    score = result["metrics"]["last"]["test/acc"]
    assert reused(result) == f"{100 * score:.2f} %, trained before"
