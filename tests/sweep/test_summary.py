"""wandb offline: the sweep's table and figures are in the summary run's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from PIL import Image

from bnnbench.report.markup import Table
from bnnbench.sweep.summary import log_summary


def test_summary_run_holds_the_table_and_the_figures(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = compose("logger=wandb")
    table = Table("title", ["quantizer", "accuracy %"], [["adabin", "97.50"], ["xnor", "-"]], [])
    folder = tmp_path / "logs" / "sweeps" / "my_sweep"
    folder.mkdir(parents=True)
    for number, name in enumerate(("curves", "kernels")):
        Image.new("P", (3 + number, 2)).save(folder / f"{name}.png")
    (folder / "kernels.svg").write_text("<svg/>")
    log_summary(cfg, "my_sweep", table)
    files = list((tmp_path / "logs").rglob("comparison*.table.json"))
    assert len(files) == 1
    written = json.loads(files[0].read_text())
    assert written["columns"] == ["quantizer", "accuracy %"]
    assert written["data"] == [["adabin", 97.5], ["xnor", None]]
    images = {file.name.split("_")[0]: file for file in folder.rglob("media/images/*.png")}
    assert sorted(images) == ["curves", "kernels"]
    assert Image.open(images["kernels"]).size == (4, 2)
