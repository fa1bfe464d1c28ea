"""The one line of a running sweep."""

import io
import json
import os
from pathlib import Path

import pytest

from bnnbench.sweep import progress
from bnnbench.sweep.progress import Progress, Watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def write(folder: Path, name: str, content: object = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def at(epoch: int, accuracy: float) -> dict[str, object]:
    return {"epoch": epoch, "max_epochs": 10, "metrics": {"test/acc": accuracy}}


def test_line_counts_and_names_what_runs(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    jobs = Progress([Watched(f"net {folder.name} s0", folder) for folder in folders])
    assert jobs.line() == "[0/4 done] elapsed 0:00"
    write(folders[0], "result.json")
    write(folders[1], "error.txt")
    write(folders[2], "progress.json", at(3, 0.972))
    jobs.start -= 151
    assert jobs.line() == "[1/4 done, 1 failed] net c s0 3/10 97.2 % elapsed 2:31"
    write(folders[3], "progress.json", "not what it should be")
    assert "net c s0 3/10 97.2 % | net d s0 elapsed" in jobs.line()
    assert jobs.line(width=40) == "[1/4 done, 1 failed] net c elapsed 2:31"


def test_files_of_an_earlier_call_do_not_count(tmp_path: Path) -> None:
    for name in ("error.txt", "progress.json"):
        write(tmp_path / "a", name, at(3, 0.5))
    jobs = Progress([Watched("a", tmp_path / "a")])
    assert jobs.line() == "[0/1 done] elapsed 0:00"
    os.utime(tmp_path / "a" / "progress.json", (1, 1))  # written anew
    assert jobs.line() == "[0/1 done] a 3/10 50.0 % elapsed 0:00"


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_rewrites_in_place_only_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setattr(progress, "POLL", 0.01)
    with Progress([Watched("a", tmp_path)], stream) as jobs:
        while stream.isatty() and stream.getvalue().count("\r") < 2:
            jobs._thread.join(0.01)
    lines = stream.getvalue().splitlines()
    assert ("\r\x1b[2K[0/1 done]" in stream.getvalue()) == stream.isatty()
    assert lines[-1].endswith("[0/1 done] elapsed 0:00")
    assert stream.isatty() or len(lines) == 1  # nothing new every second in a log
