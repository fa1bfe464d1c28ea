"""Processes that were started together train a run together, or none of them does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bnnbench.records import launches
from bnnbench.records.launches import FILE, to_train
from bnnbench.records.lock import Held

OURS, THEIRS = "a" * 64, "b" * 64
FIRST = """
import sys
from pathlib import Path
from bnnbench.records.launches import to_train
with to_train(Path(sys.argv[1]), sys.argv[2], lambda: False):
    print("trains", flush=True)
    sys.stdin.readline()
"""
Start = Callable[[str, str], subprocess.Popen[str]]


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.communicate("\n")


@pytest.fixture(autouse=True)
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second one of a job's."""
    for name in ("RANK", "LOCAL_RANK", *launches._VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(launches, "POLL", 0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the first process of a job, which trains until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def begun(job: str, fingerprint: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", FIRST, str(tmp_path), fingerprint],
            env={"SLURM_PROCID": "0", "SLURM_JOB_ID": job, "PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "trains\n"
        started.append(process)
        return process

    yield begun
    for process in started:
        end(process)


def trains(folder: Path, finished: Callable[[], bool] = lambda: False, **how: bool) -> bool:
    with to_train(folder, OURS, finished, **how) as is_ours:
        return is_ours


def test_it_joins_the_first_one(tmp_path: Path, start: Start) -> None:
    first = start("7", OURS)
    assert trains(tmp_path)
    end(first)
    assert list(tmp_path.iterdir()) == []  # nothing stays


def test_it_waits_while_another_job_trains_and_takes_the_result(
    tmp_path: Path, start: Start
) -> None:
    """The other job's processes are no company: with them it would wait for the first for ever."""
    start("8", OURS)
    tries = iter([False, False, True])
    assert not trains(tmp_path, lambda: next(tries))


def test_it_joins_once_the_first_one_has_its_turn(tmp_path: Path, start: Start) -> None:
    other = start("8", OURS)
    tries = 0

    def finished() -> bool:
        nonlocal tries
        tries += 1
        if tries == 3:
            end(other)
            start("7", OURS)
        return False

    assert trains(tmp_path, finished)
    assert tries == 3


def test_what_an_earlier_start_of_the_job_has_said_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / FILE).write_text(launches._launch())
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert not trains(tmp_path, lambda: True)


def test_another_run_in_the_folder_is_refused_as_by_the_first_one(
    tmp_path: Path, start: Start
) -> None:
    start("8", THEIRS)
    with pytest.raises(Held, match="another run is being trained"):
        trains(tmp_path)
    tries = iter([False, True])
    assert not trains(tmp_path, lambda: next(tries), replaces=True)


def test_a_first_process_that_never_comes_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "PATIENCE", 0.05)
    with pytest.raises(RuntimeError, match="has not come"):
        trains(tmp_path)


def test_one_that_lightning_started_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert trains(tmp_path)


def test_alone_it_trains_unless_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert trains(tmp_path)
    assert not trains(tmp_path, lambda: True)
    assert list(tmp_path.iterdir()) == []
