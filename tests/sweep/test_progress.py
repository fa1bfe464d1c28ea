"""The lines of a running sweep, and when it is painted instead."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest

from bnnbench.sweep import progress
from bnnbench.sweep.progress import Progress, ended
from bnnbench.sweep.watched import Seen, Watched

RESULT = {"headline": "test/acc", "metrics": {"last": {"test/acc": 0.5}}, "epochs": 10}
RESULT |= {"time": {"wall_s": 65.0}}


def write(folder: Path, name: str, content: object = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def at(epoch: int, accuracy: float) -> dict[str, object]:
    return {"epoch": epoch, "max_epochs": 10, "metrics": {"test/acc": accuracy}}


def begin(folder: Path) -> None:
    write(folder, "worker.json", {"pid": 1})


def test_line_counts_and_names_what_runs(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    jobs = Progress([Watched(f"net {folder.name} s0", folder, 10) for folder in folders])
    assert jobs.line() == "[0/4 done] elapsed 0:00"
    write(folders[0], "result.json")
    write(folders[1], "error.txt")
    begin(folders[2])
    write(folders[2], "progress.json", at(3, 0.972))
    jobs.start -= 151
    running = "net c s0 4/10 test acc 97.2 %"
    assert jobs.line() == f"[1/4 done, 1 failed] {running} elapsed 2:31, left \N{EN DASH}"
    begin(folders[3])
    write(folders[3], "progress.json", "not what it should be")
    assert f"{running} | net d s0 starting elapsed" in jobs.line()
    write(folders[2], "progress.json", at(3, 0.972) | {"epoch_s": 2.0, "left_s": 13.0})
    assert jobs.line().endswith("elapsed 2:31, left 0:20")  # of the one that starts


def test_files_of_an_earlier_call_do_not_count(tmp_path: Path) -> None:
    for name in ("error.txt", "progress.json", "worker.json"):
        write(tmp_path / "a", name, at(3, 0.5))
    jobs = Progress([Watched("a", tmp_path / "a")])
    assert jobs.line() == "[0/1 done] elapsed 0:00"
    for name in ("progress.json", "worker.json"):
        os.utime(tmp_path / "a" / name, (1, 1))  # written anew
    assert jobs.line() == "[0/1 done] a 4/10 test acc 50.0 % elapsed 0:00, left \N{EN DASH}"


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (
            Seen("a", "finished", 10, None, "test acc 50.0 %", 65.0),
            "finished: a: test acc 50.0 %, 10 epochs in 1:05",
        ),
        (Seen("a", "finished", 1, train_s=0.4), "finished: a: 1 epoch in 0:00"),
        (Seen("a", "finished", 0), "finished: a: 0 epochs"),
        (Seen("a", "finished"), "finished: a"),
        (Seen("a", "failed", why="ValueError: no"), "failed: a: ValueError: no"),
        (Seen("a", "failed"), "failed: a"),
    ],
)
def test_a_line_of_each_that_ends(cell: Seen, line: str) -> None:
    assert ended(cell) == line


def test_a_log_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL", 0.01)
    folders = [tmp_path / name for name in "abc"]
    stream = io.StringIO()
    with Progress([Watched(f.name, f, 10) for f in folders], stream) as jobs:
        write(folders[0], "result.json", RESULT)
        while "finished" not in stream.getvalue():
            jobs._thread.join(0.01)
        assert stream.getvalue() == "finished: a: test acc 50.0 %, 10 epochs in 1:05\n"
        jobs.last -= 31
        while stream.getvalue().count("\n") < 2:
            jobs._thread.join(0.01)
        write(folders[1], "error.txt", "oh")
        jobs._thread.join(0.05)
        write(folders[2], "result.json", RESULT)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "[1/3 done] elapsed 0:00"
    assert lines[2] == 'failed: b: "oh"'
    assert lines[3].startswith("finished: c: ")  # also where it ended last of all
    assert lines[4:] == ["[2/3 done, 1 failed] elapsed 0:00"]
    assert "\x1b" not in stream.getvalue()


def test_long_sweeps_tell_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    jobs = Progress([Watched("a", tmp_path)], stream)
    for elapsed, since, told in ((20, 29, 0), (20, 31, 1), (1000, 31, 0), (1000, 101, 1)):
        jobs.start, jobs.last = jobs.start - elapsed, jobs.last - since
        before = stream.getvalue().count("\n")
        now = progress.time.monotonic()
        jobs.start, jobs.last = now - elapsed, now - since
        jobs._log()
        assert stream.getvalue().count("\n") - before == told
    jobs.start, jobs.last = jobs.start - 10**6, progress.time.monotonic() - 301
    jobs._log()
    assert stream.getvalue().count("\n") == 3


def test_a_terminal_is_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the pseudo terminal of a test that is dumb, and not where jobs print themselves."""
    monkeypatch.setattr(progress, "POLL", 0.01)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for paint, term in ((True, "xterm"), (False, "xterm"), (True, "dumb")):
        monkeypatch.setenv("TERM", term)
        leader, follower = os.openpty()
        with os.fdopen(follower, "w") as stream:
            begin(tmp_path / "a")
            watched = Watched("a", tmp_path / "a", 10)
            with Progress([watched], stream, workers=2, paint=paint) as jobs:
                write(tmp_path / "a", "progress.json", at(3, 0.5))
                os.utime(tmp_path / "a" / "worker.json", (1, 1))
                jobs._thread.join(0.2)
            text = os.read(leader, 65536).decode()  # all of it: nobody else writes
            while "0/1 done" not in text:
                text += os.read(leader, 65536).decode()
        os.close(leader)
        assert text.rstrip().endswith(
            "[0/1 done] a 4/10 test acc 50.0 % elapsed 0:00, left \N{EN DASH}"
        )
        plain = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert bool(re.search(r"a +training +4/10", plain)) is (paint and term == "xterm")
        assert ("\x1b[?25h" in text) is (paint and term == "xterm")  # the cursor is shown
