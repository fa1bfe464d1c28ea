"""Sweeps handed over to submitit: on this machine, and through a queue that kills and requeues."""

from __future__ import annotations

import getpass
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from bnnbench.sweep.jobs import Submitted, in_queue, read_job, write_job

pytest.importorskip("submitit", reason="needs the extra slurm")

App = Any  # the fixture's class stands in conftest.py, which is not to be imported
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOUR = ("-m", "quantizer=adabin,xnor,fp32,boom", "backbone=resnet20")
LOCAL, SLURM = "hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")


def table(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stdout.splitlines() if line.startswith("|")]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a queue."""
    folder, state = tmp_path / "bin", tmp_path / "queue"
    folder.mkdir()
    state.mkdir()
    text = (HERE / "fake_slurm.py").read_text()
    for name in COMMANDS:
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{text}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "FAKE_SLURM": str(state), "FAKE_ROOT": str(tmp_path)}


def asked(slurm: Mapping[str, str]) -> list[dict[str, str]]:
    """What each call of sbatch asked for."""
    lines = (Path(slurm["FAKE_SLURM"]) / "log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_sweep_of_processes_on_this_machine(app: App) -> None:
    run = app.run(*FOUR, LOCAL)
    assert run.returncode == 1, run.stderr
    done = [f"| {q} | finished |" for q in ("adabin", "xnor", "fp32")]
    assert table(run) == [*done, "| boom | failed |"]
    assert "4 jobs handed over" in run.stderr
    assert "1 of 4 runs failed, 0 have no result yet" in run.stderr
    assert "Traceback" not in run.stderr
    for file in app.results():
        assert "chatter of a run" in (file.parent / "output.log").read_text()
        job = read_job(file.parent)
        assert job is not None
        assert Path(job.stdout).is_file()
        assert json.loads(file.read_text())["versions"]["threads"] == "1"
    again = app.run("-m", "quantizer=adabin,xnor,fp32", "backbone=resnet20", LOCAL)
    assert (again.returncode, len(app.executed())) == (0, 4)
    assert "handed over" not in again.stderr


def test_an_array_of_slurms(app: App, slurm: dict[str, str]) -> None:
    run = app.run(*FOUR, SLURM, "hydra.launcher.array_parallelism=2", **slurm)
    assert run.returncode == 1, run.stderr
    assert table(run)[0] == "| adabin | finished |"
    assert len(app.results()) == 3
    (array,) = asked(slurm)
    expected = {"array": "0-3%2", "time": "720", "mem": "32GB", "cpus-per-task": "8"}
    expected |= {"gpus-per-node": "1", "signal": "USR2@120", "job-name": "bnnbench"}
    assert {key: array[key] for key in expected} == expected
    script = (Path(slurm["FAKE_SLURM"]) / "100.sh").read_text()
    assert "#SBATCH --requeue\n" in script
    assert "export SLURM_KILL_BAD_EXIT=1\n" in script
    jobs = {read_job(file.parent).job for file in app.results()}  # pyright: ignore
    assert jobs == {"100_0", "100_1", "100_2"}


def test_a_sweep_is_left_and_collected_later(app: App, slurm: dict[str, str]) -> None:
    slow = {"APP_UNTIL": str(app.folder / "go")}
    process = subprocess.Popen(
        app.command(*FOUR[:1], "quantizer=adabin,xnor,fp32", FOUR[2], SLURM),
        env=app.environment(**slurm, **slow),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: len(app.executed()) == 3)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "3 have no result yet" in stderr
    assert "jobs stay in the queue, and report.py sweep=" in stderr

    later = subprocess.Popen(
        app.command(*FOUR[:1], "quantizer=adabin,xnor,fp32", FOUR[2], SLURM),
        env=app.environment(**slurm, **slow),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert later.stderr is not None
    lines = iter(later.stderr.readline, "")
    told = [*islice((line for line in lines if "in the queue already" in line), 3)]
    Path(slow["APP_UNTIL"]).touch()
    stdout, stderr = later.communicate(timeout=120)
    assert later.returncode == 0, stderr
    assert ["job 100_" in line for line in told] == [True] * 3
    assert (len(asked(slurm)), len(app.executed())) == (1, 3)
    assert stdout.count("| finished |") == 3


def test_what_the_cluster_kills_costs_no_other(app: App, slurm: dict[str, str]) -> None:
    run = app.run("-m", "quantizer=adabin,xnor", FOUR[2], SLURM, APP_KILL="xnor", **slurm)
    assert run.returncode == 1
    assert table(run) == ["| adabin | finished |", "| xnor | interrupted |"]
    assert "no result: digits_resnet20_xnor" in run.stderr
    assert "job 100_1" in run.stderr
    assert "_0_log.err" in run.stderr
    again = app.run("-m", "quantizer=adabin,xnor", FOUR[2], SLURM, **slurm)
    assert (again.returncode, len(asked(slurm))) == (0, 2)


def test_jobs_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Submitted("slurm", "7_1", "a.out", "a.err")
    write_job(tmp_path / "run", job)
    assert read_job(tmp_path / "run") == job
    (tmp_path / "run" / "job.json").write_text("{")
    assert read_job(tmp_path / "run") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_queue() is None
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho $@ >&2\necho 7_1 RUNNING\necho 8 PENDING\n")
    squeue.chmod(0o755)
    assert in_queue() == {"7_1": "RUNNING", "8": "PENDING"}
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert in_queue() is None
    assert getpass.getuser()


REAL = ["backbone=resnet20", "+trainer.limit_train_batches=2", "trainer.accelerator=cpu"]
REAL += ["logger=none", "compile=false"]


def train(logs: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "src" / "train.py"), *words, *REAL, f"paths.log_dir={logs}"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | extra,
        capture_output=True,
        text=True,
        timeout=900,
    )


def weights(logs: Path) -> dict[str, Any]:
    import torch

    (file,) = logs.glob("runs/*/checkpoints/last.ckpt")
    return torch.load(file, weights_only=True)["state_dict"]


def test_a_job_that_is_warned_is_queued_again_or_goes_on_later(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    """Warned twice: it may be queued again once, and the next call does the rest."""
    import torch

    logs, words = tmp_path / "logs", ["quantizer=irnet", "trainer.max_epochs=12"]
    queue = ["-m", SLURM, "hydra.launcher.max_num_timeout=1", "hydra.launcher.timeout_min=5"]
    limits = {"FAKE_WARN": "logs/runs/*/checkpoints/last.ckpt", "FAKE_TIMES": "2"}
    cut = train(logs, *words, *queue, **slurm, **limits)
    assert cut.returncode == 1, cut.stderr
    assert "0 of 1 runs failed, 1 have no result yet" in cut.stderr
    (folder,) = logs.glob("runs/digits*")
    assert not (folder / "error.txt").exists()
    assert json.loads((Path(slurm["FAKE_SLURM"]) / "100.json").read_text())["starts"] == 2
    said = (folder / "output.log").read_text()
    assert "Requeued job 100 (0 remaining timeouts)" in said
    assert said.count("ended by SIGUSR2 in epoch ") == 1
    assert "timed-out too many times. the same command goes on" in said
    again = train(logs, *words, *queue, **slurm)
    assert again.returncode == 0, again.stderr
    assert train(tmp_path / "whole", *words).returncode == 0
    expected, found = weights(tmp_path / "whole"), weights(logs)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    results = [
        json.loads(next(place.glob("runs/*/result.json")).read_text())
        for place in (logs, tmp_path / "whole")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["history"]["train/loss"] == results[1]["history"]["train/loss"]


def test_four_cells_train_as_processes_of_this_machine(tmp_path: Path) -> None:
    done = train(tmp_path, "-m", LOCAL, "quantizer=xnor,bnn", "seed=0,1", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert "4 jobs handed over" in done.stderr
    assert (done.stdout.count("\n| xnor "), done.stdout.count("\n| bnn ")) == (1, 1)
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 4
    assert "UserWarning" not in done.stderr
    (sweep,) = (path.parent.name for path in tmp_path.glob("sweeps/*/sweep.json"))
    report = [sys.executable, str(ROOT / "src" / "report.py"), f"sweep={sweep}"]
    told = subprocess.run(
        [*report, f"paths.log_dir={tmp_path}"], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith(f"sweep {sweep}: 4 runs, 4 finished\nfinished ")
    assert f"{tmp_path}/sweeps/{sweep}/table.md" in told
