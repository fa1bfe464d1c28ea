"""Where a sweep stands, by the folders of its runs and the queue."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnnbench.records.store import write_json
from bnnbench.sweep import collected
from bnnbench.sweep.collected import standing
from bnnbench.sweep.jobs import Submitted, write_job

NAMES = ("finished", "waiting", "training", "here", "failed", "cut", "killed", "missing")


def manifest() -> dict[str, Any]:
    cells = [
        {"overrides": {"quantizer": name, "seed": "0"}, "run": name, "fingerprint": name}
        for name in NAMES
    ]
    return {"name": "mine", "swept": ["quantizer"], "cells": cells}


def test_each_run_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("waiting", "training", "killed")):
        write_job(tmp_path / name, Submitted("slurm", f"7_{number}", "a.out", "/jobs/a.err"))
    for name in ("training", "here", "cut"):
        (tmp_path / name).mkdir(exist_ok=True)
        state = {"epoch": 3, "max_epochs": 10, "metrics": {"test/acc": 0.5}}
        write_json(tmp_path / name / "progress.json", state)
    (tmp_path / "training" / "output.log").touch()
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "error.txt").write_text("Traceback\nValueError: no such thing\n")
    monkeypatch.setattr(collected, "in_queue", lambda: {"7_0": "PENDING", "7_1": "RUNNING"})
    monkeypatch.setattr(collected, "holder", lambda folder: True if folder.name == "here" else None)
    real = collected.cell_state
    done = lambda runs, cell: "finished" if cell.run == "finished" else real(runs, cell)  # noqa: E731
    monkeypatch.setattr(collected, "cell_state", done)
    monkeypatch.setattr(collected, "_score", lambda folder: "test acc 97.2 %")
    assert standing(manifest(), tmp_path) == [
        "sweep mine: 8 runs, 1 finished, 2 running, 1 in the queue, 1 failed, 1 interrupted, "
        "2 missing",
        "finished      finished: test acc 97.2 %",
        "in the queue  waiting: job 7_0, pending",
        "running       training: epoch 4/10, test acc 50.0 %; job 7_1; "
        f"{tmp_path}/training/output.log",
        "running       here: epoch 4/10, test acc 50.0 %",
        f"failed        failed: ValueError: no such thing; {tmp_path}/failed/error.txt",
        "interrupted   cut",
        "missing       killed: job 7_2; /jobs/a.err",
        "missing       missing",
    ]


def test_a_run_whose_twin_is_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected, "in_queue", dict)
    monkeypatch.setattr(collected, "holder", lambda folder: folder.name == "waiting" or None)
    (tmp_path / "waiting").mkdir()
    write_json(tmp_path / "waiting" / "progress.json", {"first": str(tmp_path / "fp32")})
    assert "running       waiting: starting, twin" in standing(manifest(), tmp_path)


def test_it_is_told_without_torch() -> None:
    program = "import sys; from bnnbench.sweep import collected; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
