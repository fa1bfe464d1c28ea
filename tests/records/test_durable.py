"""Files that are whole at any moment, and what dead processes leave of them."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bnnbench.records import durable
from bnnbench.records.durable import FOREIGN_S, sweep, write_whole
from bnnbench.records.store import write_json

OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    write_whole(path, OLD)
    return path


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows beyond a kilobyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_file_before_is_kept_where_that_is_asked_for(file: Path) -> None:
    previous = file.with_name("previous.ckpt")
    for content, before in ((NEW, OLD), (OLD, NEW)):
        write_whole(file, content, previous)
        assert (file.read_bytes(), previous.read_bytes()) == (content, before)
    assert sorted(os.listdir(file.parent)) == ["last.ckpt", "previous.ckpt"]


def test_without_hard_links_the_one_before_is_kept_too(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links")

    monkeypatch.setattr(os, "link", refuse)
    previous = file.with_name("previous.ckpt")
    write_whole(file, NEW, previous)
    assert (file.read_bytes(), previous.read_bytes()) == (NEW, OLD)


def test_a_write_that_fails_names_the_file_and_leaves_the_one_before(file: Path) -> None:
    with full_disk(), pytest.raises(OSError, match=r"last\.ckpt cannot be written \(File too l"):
        write_whole(file, NEW, file.with_name("previous.ckpt"))
    assert file.read_bytes() == OLD
    assert os.listdir(file.parent) == ["last.ckpt"]


def test_a_result_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match=r"result\.json cannot be written"):
        write_json(tmp_path / "result.json", list(range(1000)))
    assert os.listdir(tmp_path) == []


def dies_at(number: int, file: Path) -> bool:
    """Write in a child that dies before its ``number``-th call of the system; whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    calls = 0

    def counted(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if calls == number:
                os._exit(9)
            calls += 1
            return original(*args, **kwargs)

        return call

    for name in ("fsync", "link", "replace", "unlink", "rename"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("replace", "unlink", "open"):
        setattr(Path, name, counted(getattr(Path, name)))
    write_whole(file, NEW, file.with_name("previous.ckpt"))
    os._exit(0)


def test_a_death_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "last.ckpt"
        write_whole(file, OLD)
        write_whole(file, OLD, file.with_name("previous.ckpt"))
        died = dies_at(number, file)
        assert file.read_bytes() in (OLD, NEW)
        assert file.with_name("previous.ckpt").read_bytes() == OLD
        sweep(folder)
        assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"]
        if not died:
            break
    assert number > 5


def test_what_dead_processes_leave_is_swept_and_what_living_ones_write_is_not(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = platform.node()
    left = [f".last.ckpt.{host}.{dead.pid}", f".result.json.{dead.pid}"]
    left += [f".previous.ckpt.{host}.{dead.pid}", f".metrics.csv.{host}.{dead.pid}"]
    kept = [f".last.ckpt.{host}.{os.getpid()}", f".progress.json.{os.getppid()}", ".last.ckpt.mine"]
    kept += ["last.ckpt", f".notes.{dead.pid}", f".last.ckpt.another-{host}.{dead.pid}"]
    for name in [*left, *kept]:
        (tmp_path / name).touch()
    old = tmp_path / f".last.ckpt.a-third.{host}.{os.getpid()}"
    old.touch()
    os.utime(old, (time.time() - FOREIGN_S - 60,) * 2)
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_temporary_file_is_called_what_the_sweep_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("node1.cluster.example.org", "laptop", "10.0.0.5"):
        monkeypatch.setattr(platform, "node", lambda host=host: host)
        name = durable._temporary(tmp_path / "last.ckpt").name
        found = durable._TEMPORARY.fullmatch(name)
        assert found
        assert (found["host"], found["pid"]) == (host, str(os.getpid()))
