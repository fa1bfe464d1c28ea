"""The record of a sweep, and its name."""

import re

import pytest

from bnnbench.records.store import Cell
from bnnbench.sweep.manifest import manifest, sweep_name, swept_keys, table_name, telling


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
    assert telling([typed]) == [{"quantizer": "a", "trainer.x": "1"}]


def test_what_the_user_told_apart_is_told() -> None:
    cells = [{"quantizer": "a", "force": "true", "dataset.workers": n} for n in "04"]
    assert telling(cells) == [{"quantizer": "a", "dataset.workers": n} for n in "04"]


@pytest.mark.parametrize("key", ["recipe.batch_size.cifar10", "recipe.epochs", "recipe.resize"])
def test_a_recipes_numbers_make_another_sweep(key: str) -> None:
    plain = {"quantizer": "a", "recipe": "fast"}
    assert sweep_name(telling([plain])) != sweep_name(telling([plain | {key: "64"}]))


def test_a_plain_sweep_is_named_by_its_overrides() -> None:
    name = sweep_name([ADABIN, XNOR])
    assert name.startswith("adabin-xnor_resnet18_")
    assert name == sweep_name([ADABIN, XNOR])
    assert name != sweep_name([ADABIN, XNOR, XNOR | {"seed": "1"}])


def test_a_table_is_named_by_itself_and_by_what_was_changed_of_it() -> None:
    usual = [ADABIN, XNOR]
    assert table_name("unified", "demo", usual, usual) == "unified_demo"
    changed = [cell | {"seed": "5", "recipe.lr": "0.1"} for cell in usual]
    name = table_name("unified", "demo", changed, usual)
    assert name.startswith("unified_demo_seed5_lr0.1_")
    others = [[XNOR], [cell | {"seed": "6"} for cell in usual]]
    names = {table_name("unified", "demo", cells, usual) for cells in (usual, changed, *others)}
    assert len(names) == 4


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("recipe.lr", "0.1", "lr0.1"),
        ("seed", "1", "seed1-0"),
        ("compile", "True", "compileTrue"),
        ("init_from", "/a b/c", "a-b-c"),
    ],
)
def test_names_are_good_folder_names(key: str, value: str, word: str) -> None:
    other = {key: value} if key != "init_from" else {key: value, "seed": "0"}
    name = sweep_name([other, {key: "0"}] if key == "seed" else [other])
    assert word in name
    assert "/" not in name


def test_a_long_name_stays_readable() -> None:
    many = [{"quantizer": f"method{i}", "backbone": "resnet20"} for i in range(30)]
    assert sweep_name(many)[:-9] == "method0-method1-method2-27-more_resnet20"
    wide = [{f"recipe.option{i}": "value" for i in range(30)}]
    name = sweep_name(wide)
    assert name[:-9].endswith("_etc")
    assert len(name) < 100


@pytest.mark.parametrize("folder", ["/data/my insects", "~/insects", "../a/insects/", "./insects"])
def test_a_path_is_named_by_its_last_part(folder: str) -> None:
    name = sweep_name([{"dataset": "image_folder", "dataset.folder": folder}])
    assert re.fullmatch(r"image-folder_(my-)?insects_[0-9a-f]{8}", name)


def test_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["src/train.py", "-m", "quantizer=adabin,xnor", "a=b c"])
    settings = [
        {"quantizer.name": name, "seed": 0, "recipe.milestones": []} | own
        for name, own in (("adabin", {"quantizer.t_min": 0.1}), ("xnor", {}))
    ]
    rows = [
        Cell(overrides, f"run{i}", f"f{i}", settings[i], "test/acc")
        for i, overrides in enumerate((ADABIN, XNOR))
    ]
    record = manifest("name", rows, {"name": "t"}, "demo", "digits")
    assert record == {
        "schema": 2,
        "name": "name",
        "command": "python src/train.py -m quantizer=adabin,xnor 'a=b c'",
        "table": {"name": "t"},
        "scale": "demo",
        "scale_notes": "digits",
        "swept": ["quantizer"],
        "headline": "test/acc",
        "figures": ["curves"],
        "shared": {"seed": 0, "recipe.milestones": []},
        "cells": [
            {
                "overrides": ADABIN,
                "run": "run0",
                "fingerprint": "f0",
                "settings": {"quantizer.name": "adabin", "quantizer.t_min": 0.1},
            },
            {
                "overrides": XNOR,
                "run": "run1",
                "fingerprint": "f1",
                "settings": {"quantizer.name": "xnor"},
            },
        ],
    }
    for cell, own in zip(record["cells"], settings, strict=True):
        assert record["shared"] | cell["settings"] == own
