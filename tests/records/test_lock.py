"""One run folder, one process: two real processes, and what is left of one that was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bnnbench.records import lock
from bnnbench.records.lock import Held, holder, locked
from bnnbench.records.store import Cell, cell_state

HOLDS = """
import os, sys, time
from bnnbench.records.lock import locked
with locked(sys.argv[1], "a" * 64):
    if sys.argv[2] == "forks" and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held_by_another(folder: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until its input ends; it and its children are then ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *(how or ("alone",))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_next_one_waits_and_says_for_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "a"
    with held_by_another(folder) as other:
        found = holder(folder)
        assert found is not None
        assert (found.pid, found.host) == (other.pid, socket.gethostname())
        waits = 0

        def sleep(seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                other.communicate("\n")

        monkeypatch.setattr(lock.time, "sleep", sleep)
        with locked(folder, "a" * 64):
            assert other.returncode == 0
            mine = json.loads((folder / "lock").read_text())
            assert mine["pid"] == os.getpid()
        assert waits == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1  # not one a try
    assert said[0].startswith(f"{folder} is held by process {other.pid} on {found.host} since 20")
    assert list(folder.iterdir()) == []  # nothing stays


def test_somebody_who_waits_long_says_so_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += 10
        if clock > 100:
            raise Enough

    monkeypatch.setattr(lock.time, "sleep", sleep)
    monkeypatch.setattr(lock.time, "monotonic", lambda: clock)
    with held_by_another(tmp_path), pytest.raises(Enough), locked(tmp_path, "a" * 64):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 4  # at 0, 30, 60 and 90 s


@pytest.mark.parametrize("how", ["alone", "forks"])
def test_a_killed_process_holds_nothing(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither does a child that it forked, and that lives on."""
    with held_by_another(tmp_path, how) as other:
        other.kill()
        other.wait()
        assert (tmp_path / "lock").exists()
        assert holder(tmp_path) is None
        start = time.monotonic()
        with locked(tmp_path, "a" * 64):
            assert time.monotonic() - start < 1
    assert f"held by process {other.pid} on" in (said := capsys.readouterr().err)
    assert "which is gone: taken over" in said


def test_a_folder_of_another_run_is_not_waited_for(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as other:
        with (
            pytest.raises(Held, match=f"another run .* process {other.pid} on .*force=true"),
            locked(tmp_path, "b" * 64),
        ):
            pass
        os.kill(other.pid, signal.SIGKILL)
        with locked(tmp_path, "b" * 64, replaces=True):
            pass


def test_waiters_take_turns(tmp_path: Path) -> None:
    """The file that one of them removes at its end is not the one that two others lock."""
    counts = """
import sys, time
from bnnbench.records import lock
lock.POLL = 0.001
for _ in range(40):
    with lock.locked(sys.argv[1] + "/run", "a" * 64):
        n = int(open(sys.argv[1] + "/count").read())
        time.sleep(0.001)
        open(sys.argv[1] + "/count", "w").write(str(n + 1))
"""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", counts, str(tmp_path)]
    for process in [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]:
        assert process.wait() == 0
    assert (tmp_path / "count").read_text() == "120"


def test_a_look_from_within_gives_no_lock_up(tmp_path: Path) -> None:
    with locked(tmp_path, "a" * 64):
        assert holder(tmp_path) is None
        look = f"from bnnbench.records.lock import holder; print(holder({str(tmp_path)!r}).pid)"
        found = subprocess.check_output([sys.executable, "-c", look], text=True)
    assert int(found) == os.getpid()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    with locked(tmp_path, "a" * 64):
        pass
    assert "a file system without locks (No locks available)" in capsys.readouterr().err
    assert holder(tmp_path) is None


def test_a_lock_says_nothing_of_a_runs_state(tmp_path: Path) -> None:
    cell = Cell(overrides={}, run="a", fingerprint="a" * 64)
    with held_by_another(tmp_path / "a"):
        assert cell_state(tmp_path, cell) == "missing"
