"""Losses to corruptions by hand, and what a damaged file costs."""

import json
from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.markup import MISSING
from bnnbench.report.overall_page import Where, page
from bnnbench.report.robust import read
from bnnbench.report.robust import tested_at as at_scale

TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "robustness_cifar10_quick",
    "scale": "quick",
    "networks": [
        {
            "name": "xnor",
            "method": "xnor",
            "twin": "float",
            "clean": 0.6,
            "corrupted": {"fog": [0.5, 0.3], "snow": [0.4], "only here": [0.1]},
        },
        {"name": "alone", "method": "adabin", "twin": "?", "clean": 0.5, "corrupted": {}},
        {
            "name": "float",
            "method": "fp32",
            "twin": None,
            "clean": 0.9,
            "corrupted": {"fog": [0.8, 0.8], "snow": [0.8]},
        },
    ],
}


def test_a_loss_is_clean_minus_the_mean_over_severities_of_both(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TABLE))
    tables = read([tmp_path / "a.json"])
    losses, names = at_scale(tables, "quick")
    assert names == ["robustness_cifar10_quick"]
    assert losses == {"xnor": {"fog": pytest.approx((0.2, 0.1)), "snow": pytest.approx((0.2, 0.1))}}
    assert at_scale(tables, "demo") == ({}, [])


def test_the_page_has_the_track_where_there_is_such_a_file(tmp_path: Path) -> None:
    """Twice the twin's loss is a score of a half."""
    (tmp_path / "a.json").write_text(json.dumps(TABLE))
    where = Where([], tmp_path, f"{tmp_path}/{{}}", f"{tmp_path}/{{}}_dots", [tmp_path / "a.json"])
    written = page(where, None, None, ("svg",))
    assert written is not None
    assert written[1].rows == [["xnor", *[MISSING] * 2, "0.500", *[MISSING] * 3]]
    (note,) = [note for note in written[1].notes if note.startswith("corruption robustness:")]
    assert note.endswith("over fog, snow; from robustness_cifar10_quick")


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps(TABLE | {"schema": 2}), json.dumps({"schema": 1})]
)
def test_a_damaged_file_is_named_and_left_out(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "good.json").write_text(json.dumps(TABLE))
    assert len(read([tmp_path / "bad.json", tmp_path / "good.json", tmp_path / "none.json"])) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" is damaged")[0] for line in told] == [
        f"left out: {tmp_path / name}" for name in ("bad.json", "none.json")
    ]
