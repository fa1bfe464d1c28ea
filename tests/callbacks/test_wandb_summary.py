"""wandb offline: the sweep's table is in the summary run's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bnnbench.callbacks.wandb_summary import log_summary
from bnnbench.report.markup import Table


def test_summary_run_holds_the_table(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = compose("logger=wandb")
    table = Table("title", ["quantizer", "accuracy %"], [["adabin", "97.50"], ["xnor", "-"]], [])
    log_summary(cfg, "my_sweep", table)
    files = list((tmp_path / "logs").rglob("comparison*.table.json"))
    assert len(files) == 1
    written = json.loads(files[0].read_text())
    assert written["columns"] == ["quantizer", "accuracy %"]
    assert written["data"] == [["adabin", "97.50"], ["xnor", "-"]]
