"""A bench file is checked when it is read, and the newest one counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bnnbench.records.speeds import checked, newest, read_speeds


def speeds(**entries: Any) -> dict[str, Any]:
    machine = {"cpu": "A", "flags": [], "cores": 1, "kernel": "avx2", "load": None}
    lists = {key: [] for key in ("subjects", "timings", "left_out", "layers")}
    content = {"schema": 1, "command": "bnnbench bench", "date": "2026-01-01", "machine": machine}
    return {**content, "versions": {}, "git": {}, "limits": {}, **lists, **entries}


@pytest.mark.parametrize(
    ("entries", "place"),
    [
        ({"schema": 2}, "schema"),
        ({"machine": {}}, "machine.cpu"),
        ({"timings": [{}]}, "timings.0.network"),
        ({"limits": {"floats": float("nan")}}, "limits.floats"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_bench_file_is_told_with_its_field(entries: dict, place: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.json is no bench file \({place}"):
        checked(speeds(**entries), "a.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "nothing"])
def test_a_damaged_file_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is (damaged|no bench file).*bench again"):
        read_speeds(tmp_path / "a.json")


def test_the_newest_counts(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for name, date in (("a", "2026-02-01"), ("b", "2026-03-01"), ("c", "2026-01-01")):
        (tmp_path / f"{name}.json").write_text(json.dumps(speeds(date=date)))
    found = newest(tmp_path)
    assert found is not None
    assert found[0].name == "b.json"
