"""The record of a sweep, and its name."""

import pytest

from bnnbench.records.store import Cell
from bnnbench.sweep.manifest import manifest, sweep_name, swept_keys, telling


def cells(*overrides: dict[str, str]) -> list[Cell]:
    return [Cell(o, f"run{i}", f"f{i}") for i, o in enumerate(overrides)]


ADABIN = {"quantizer": "adabin", "backbone": "resnet18", "seed": "0"}
XNOR = ADABIN | {"quantizer": "xnor"}


def test_swept_keys_are_those_that_differ_but_the_seed() -> None:
    twin = ADABIN | {"quantizer": "fp32", "backbone.nonlinearity": "relu"}
    assert swept_keys(cells(ADABIN, XNOR, XNOR | {"seed": "1"})) == ["quantizer"]
    assert swept_keys(cells(ADABIN, twin)) == ["quantizer", "backbone.nonlinearity"]
    assert swept_keys(cells(ADABIN)) == []


def test_where_a_teacher_lies_is_a_column_only_where_there_are_several() -> None:
    taught = [XNOR | {"teacher": "run", "teacher.folder": folder} for folder in "ab"]
    assert swept_keys(cells(XNOR, taught[0])) == ["teacher"]
    assert swept_keys(cells(XNOR, *taught)) == ["teacher", "teacher.folder"]


def test_settings_that_change_no_number_are_left_out() -> None:
    typed = {
        "quantizer": "a",
        "+trainer.x": "1",
        "force": "true",
        "paths.log_dir": "/x",
        "logger": "csv",
    }
    assert telling(typed) == {"quantizer": "a", "trainer.x": "1"}


def test_a_plain_sweep_is_named_by_its_overrides() -> None:
    name = sweep_name(cells(ADABIN, XNOR))
    assert name.startswith("adabin-xnor_resnet18_")
    assert name == sweep_name(cells(ADABIN, XNOR))
    assert name != sweep_name(cells(ADABIN, XNOR, XNOR | {"seed": "1"}))
    assert sweep_name(cells(ADABIN, XNOR), "unified", "demo") == "unified_demo"


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [("recipe.lr", "0.1", "lr0.1"), ("seed", "1", "seed0-1"), ("init_from", "/a b/c", "a-b-c")],
)
def test_names_are_good_folder_names(key: str, value: str, word: str) -> None:
    other = {key: value} if key != "init_from" else {key: value, "seed": "0"}
    rows = cells(other, {key: "0"}) if key == "seed" else cells(other)
    assert word.replace("0-1", "1-0") in sweep_name(rows)
    assert "/" not in sweep_name(rows)


def test_a_long_name_is_cut() -> None:
    name = sweep_name(cells(*({"quantizer": f"method{i}"} for i in range(30))))
    assert len(name) == len("sweep_") + 8


def test_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["src/train.py", "-m", "quantizer=adabin,xnor", "a=b c"])
    record = manifest("name", cells(ADABIN, XNOR), {"name": "t"}, "demo", "digits")
    assert record == {
        "schema": 1,
        "name": "name",
        "command": "python src/train.py -m quantizer=adabin,xnor 'a=b c'",
        "table": {"name": "t"},
        "scale": "demo",
        "scale_notes": "digits",
        "swept": ["quantizer"],
        "cells": [
            {"overrides": ADABIN, "run": "run0", "fingerprint": "f0"},
            {"overrides": XNOR, "run": "run1", "fingerprint": "f1"},
        ],
    }
