"""Runs that are killed at random moments end as if nobody had; ``make chaos`` kills more often."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from bnnbench.callbacks.throughput import NAMES
from bnnbench.records.store import read_result

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
TYPED = ["quantizer=irnet", "backbone=resnet20", "+trainer.limit_train_batches=5", "logger=csv"]
TYPED += ["trainer.enable_progress_bar=false", f"trainer.max_epochs={3 * KILLS + 2}"]
TIMEOUT_S = 300.0


def start(logs: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "src/train.py"), *TYPED, f"paths.log_dir={logs}"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
        stdout=subprocess.DEVNULL,
        stderr=(logs / "stderr").open("ab"),
    )


def finish(logs: Path, **environment: str) -> Path:
    """Run to the end; the folder of the run."""
    code = start(logs, **environment).wait(TIMEOUT_S)
    assert code == 0, (logs / "stderr").read_text()
    (result,) = (logs / "runs").glob("*/result.json")
    return result.parent


def wait_for(process: subprocess.Popen[bytes], happens: Callable[[], Any], pause: float) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not happens():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(pause)


def written(logs: Path) -> list[int]:
    """When the file that each start of a training writes was written."""
    return [file.stat().st_mtime_ns for file in logs.glob("runs/*/hparams.yaml")]


def saved(logs: Path) -> list[int]:
    """When the last checkpoint was written."""
    with suppress(FileNotFoundError):
        return [file.stat().st_mtime_ns for file in logs.glob("runs/*/checkpoints/last.ckpt")]
    return []


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of an uncut run, and the seconds of one of its epochs."""
    folder = finish(tmp_path_factory.mktemp("whole"))
    result = read_result(folder) or {}
    return folder, result["time"]["wall_s"] / result["epochs"]


def untimed(columns: dict[str, Any]) -> dict[str, Any]:
    """What does not differ from run to run."""
    assert set(NAMES) <= set(columns)
    return {name: value for name, value in columns.items() if name not in NAMES}


def assert_same(folder: Path, whole: Path) -> None:
    """Weights, the optimiser, numbers and rows, bit for bit, and no file more."""
    own, other = (
        torch.load(each / "checkpoints" / "last.ckpt", weights_only=True)
        for each in (folder, whole)
    )
    states = [(own["state_dict"], other["state_dict"])]
    states += [
        (own["optimizer_states"][0]["state"][key], state)
        for key, state in other["optimizer_states"][0]["state"].items()
    ]
    for mine, theirs in states:
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], value) for key, value in theirs.items())
    found, expected = read_result(folder) or {}, read_result(whole) or {}
    for key in ("name", "metrics", "classes", "statistics", "epochs"):
        assert found[key] == expected[key], key
    assert untimed(found["history"]) == untimed(expected["history"])
    rows = [list(csv.DictReader((each / "metrics.csv").open())) for each in (folder, whole)]
    assert [untimed(row) for row in rows[0]] == [untimed(row) for row in rows[1]]
    for inside in (".", "checkpoints"):
        assert sorted(os.listdir(folder / inside)) == sorted(os.listdir(whole / inside))


def test_random_kills_change_nothing(whole: tuple[Path, float], tmp_path: Path) -> None:
    moments = random.Random(SEED)
    for _ in range(KILLS):
        before = written(tmp_path)
        process = start(tmp_path)
        wait_for(process, lambda: written(tmp_path) != before, 0.02)  # noqa: B023
        for _ in range(moments.randint(0, 1)):
            before = saved(tmp_path)
            wait_for(process, lambda: saved(tmp_path) != before, 0.01)  # noqa: B023
        time.sleep(moments.uniform(0, whole[1]))
        kill(process)
    assert_same(finish(tmp_path), whole[0])


def test_a_kill_during_a_write_leaves_a_checkpoint_beside_another_file_system(
    whole: tuple[Path, float], tmp_path: Path
) -> None:
    """Temporary files in memory, logs on a disk: a move from there is a copy."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm, and the tests' folder elsewhere")
    temporary = Path(mkdtemp(dir=memory))
    moments = random.Random(SEED + 1)
    runs, known = tmp_path / "runs", set[Path]()

    def is_writing() -> bool:
        beside = any(".last.ckpt." in name for name in os.listdir(last.parent))
        return beside or any(path.is_file() for path in {*temporary.rglob("*")} - known)

    try:
        for _ in range(KILLS):
            before = saved(tmp_path)
            process = start(tmp_path, TMPDIR=str(temporary))
            wait_for(process, lambda: saved(tmp_path) != before, 0.01)  # noqa: B023
            (last,) = runs.glob("*/checkpoints/last.ckpt")
            known = {*temporary.rglob("*")}
            wait_for(process, is_writing, 0.0)
            time.sleep(moments.uniform(0, 0.01))
            kill(process)
            torch.load(last, weights_only=True)
        assert_same(finish(tmp_path, TMPDIR=str(temporary)), whole[0])
        assert "is damaged" not in (tmp_path / "stderr").read_text()
    finally:
        shutil.rmtree(temporary)
