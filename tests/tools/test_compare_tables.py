"""Two states of small tables: a changed digit is found, a moved column is no change."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

NONE = "\N{EN DASH}"
SCRIPT = Path(__file__).parents[2] / "tools" / "compare_tables.py"
HEADER = "| quantizer | t_min | accuracy % (last epoch) | best epoch %§ | OPs | seeds |"
RULE = "| --- | --- | ---: | ---: | ---: | ---: |"
ROWS = [
    "| adabin | default | 50.00 ± 0.60 | 51.00 | 1.070e6 | 3 |",
    "| adabin | 0.01 | 49.00 | 52.00 | 1.070e6 | 1 |",
    f"| xnor | {NONE} | 41.50* | 42.00 | 1.010e6 | 1 |",
    rf"| slb: SLB \| two | {NONE} | {NONE} | {NONE} | {NONE} | {NONE} |",
]
NOTE = "- all measured rows: recipe unified, training images 50000, device cpu"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_tables", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_tables"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def page(rows: list[str] = ROWS, header: str = HEADER, note: str = NOTE) -> str:
    return "\n".join(["# A title", "", header, RULE, *rows, "", note, ""])


def state(folder: Path, sweep: str = "s", **tables: str) -> Path:
    for name, text in ({"index": "# Tables\n"} | tables).items():
        file = folder / "results" / "tables" / f"{name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        manifest = {"command": sweep, "cells": [{"overrides": {"quantizer": "adabin"}}]}
        file = folder / "results" / "sweeps" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(manifest))
    return folder


def found(script: ModuleType, old: str, new: str) -> list[str]:
    return [str(change) for change in script.changes("t", old, new)]


def test_the_same_is_the_same(script) -> None:
    assert found(script, page(), page()) == []


@pytest.mark.parametrize(
    ("before", "after", "column"),
    [
        ("50.00 ± 0.60", "50.01 ± 0.60", "accuracy % (last epoch)"),
        ("50.00 ± 0.60", "50.00 ± 0.61", "accuracy % (last epoch)"),
        ("50.00 ± 0.60", NONE, "accuracy % (last epoch)"),
        ("1.070e6", "1.070e7", "OPs"),
        ("| 3 |", "| 2 of 3 |", "seeds"),
    ],
)
def test_a_changed_digit_is_found(script, before, after, column) -> None:
    assert before in ROWS[0]
    new = page([ROWS[0].replace(before, after), *ROWS[1:]])
    (change,) = script.changes("t", page(), new)
    assert (change.row, change.column) == ("adabin", column)


def test_a_value_in_another_tables_place_is_found_by_its_row(script) -> None:
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    rows = {change.row for change in script.changes("t", page(), page(swapped))}
    assert rows == {"adabin", "adabin (2)"}
    moved = [ROWS[2], *ROWS[:2], ROWS[3]]  # another order of the quantizers is none
    assert found(script, page(), page(moved)) == []


def test_a_reordered_column_and_a_mark_are_no_change(script) -> None:
    def reorder(line: str) -> str:
        cells = line.split(" | ")
        return " | ".join([*cells[:2], *cells[3:-1], cells[2], cells[-1]])

    header = "| quantizer | t_min | best epoch %§ | OPs | accuracy % (last epoch) | seeds |"
    assert reorder(HEADER) == header
    rows = [reorder(row.replace("41.50*", "41.50")) for row in ROWS[:3]]
    assert found(script, page(ROWS[:3]), page(rows, header)) == []


def test_a_value_in_the_place_of_default_is_no_change_but_another_value_is(script) -> None:
    resolved = [ROWS[0].replace("default", "0.001"), *ROWS[1:]]
    assert found(script, page(), page(resolved)) == []
    other = [ROWS[0], ROWS[1].replace("0.01 ", "0.02 "), *ROWS[2:]]
    assert found(script, page(), page(other)) == ["t: adabin (2): t_min: 0.01 -> 0.02"]


def test_a_count_that_all_rows_share_is_compared_in_its_note(script) -> None:
    fewer = NOTE.replace("50000", "7680")
    changed = list(script.changes("t", page(), page(note=fewer)))
    assert [change.row for change in changed] == ["adabin", "adabin (2)", "xnor"]
    assert {(change.column, change.new) for change in changed} == {("training images", "7680")}
    header = HEADER.replace(" seeds |", " seeds | training images |")
    rows = [f"{row} 50000 |" for row in ROWS[:3]] + [f"{ROWS[3]} {NONE} |"]
    rule = page(rows, header, "- all measured rows: recipe unified").replace(RULE, f"{RULE} --- |")
    assert found(script, page(), rule) == []


def test_a_quantizer_that_all_rows_share_may_move_to_a_note(script) -> None:
    old = "| quantizer | lr | OPs |\n| --- | --- | --- |\n| bonn | 1 | 5 |\n| bonn | 2 | 6 |\n"
    new = "| lr | OPs |\n| --- | --- |\n| 1 | 5 |\n| 2 | 6 |\n\n- all rows: quantizer bonn, x y\n"
    assert found(script, old, new) == []
    changed = new.replace("| 6 |", "| 7 |")
    assert found(script, old, changed) == ["t: bonn (2): OPs: 6 -> 7"]


def test_vanished_and_new_rows_and_columns(script) -> None:
    lost = found(script, page(), page(ROWS[:2]))
    assert "t: xnor: accuracy % (last epoch): 41.50* -> nothing" in lost
    assert {line.split(": ")[1] for line in lost} == {"xnor"}  # the last row has no number
    fewer = found(script, page(), page(ROWS, HEADER.replace("OPs", "operations")))
    assert "t: xnor: OPs: 1.010e6 -> nothing" in fewer


def test_renamed_tables_are_found_by_their_sweep(script, tmp_path, capsys) -> None:
    old = str(state(tmp_path / "old", "one", sweep_12345678=page()))
    state(tmp_path / "old", "two", kept=page())
    changed = page([*ROWS[:2], ROWS[2].replace("42.00", "42.01"), ROWS[3]])
    new = str(state(tmp_path / "new", "one", telling=changed))
    state(tmp_path / "new", "two", kept=page())
    assert script.main([old, new]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == ["telling: xnor: best epoch %: 42.00 -> 42.01", "2 tables compared: 1 changes"]
    assert script.main([old, new, "--allow", "best epoch %"]) == 0
    assert capsys.readouterr().out.startswith("allowed: telling: xnor: best epoch %: 42.00 -> ")


def test_names_given_and_tables_that_are_gone(script, tmp_path, capsys) -> None:
    old = str(state(tmp_path / "old", "one", a=page(), b=page()))
    new = str(state(tmp_path / "new", "other", c=page()))
    assert script.main([old, new, "--renamed", "a=c"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "b: a table -> nothing"


def test_git_revisions(script, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")

    def commit(text: str) -> None:
        state(tmp_path, t=text)
        for words in (("add", "."), (*who, "commit", "-qm", "x")):
            subprocess.run(["git", *words], check=True)

    subprocess.run(["git", "init", "-q"], check=True)
    commit(page())
    commit(page([*ROWS[:2], ROWS[2].replace("41.50", "41.40"), ROWS[3]]))
    assert script.main(["HEAD~1", "HEAD"]) == 1
    assert "t: xnor: accuracy % (last epoch): 41.50* -> 41.40*" in capsys.readouterr().out
    assert script.main(["HEAD", "."]) == 0
    assert script.main(["nowhere", "HEAD"]) == 2
    assert "neither a folder nor a revision" in capsys.readouterr().err
