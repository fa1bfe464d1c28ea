"""Runs on disk."""

import json
from pathlib import Path

import pytest

from bnnbench.records.store import (
    Cell,
    DamagedResult,
    cell_state,
    read_error,
    read_result,
    write_json,
)

CELL = Cell({"quantizer": "adabin"}, "digits_adabin", "f1")
RESULT = {"schema": 1, "fingerprint": "f1"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / CELL.run
    folder.mkdir()
    return folder


def test_state_follows_the_files(run: Path) -> None:
    state = lambda: cell_state(run.parent, CELL)  # noqa: E731
    assert cell_state(run.parent / "nowhere", CELL) == "missing"
    assert state() == "missing"
    write_json(run / "progress.json", {"epoch": 0})
    assert state() == "interrupted"
    (run / "error.txt").write_text("Traceback\nValueError: no")
    assert state() == "failed"
    assert read_error(run) == "Traceback\nValueError: no"
    write_json(run / "result.json", RESULT)
    assert state() == "finished"


def test_a_checkpoint_alone_is_an_interrupted_run(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    assert cell_state(run.parent, CELL) == "interrupted"


def test_another_fingerprint_is_not_the_cell(run: Path) -> None:
    write_json(run / "result.json", RESULT | {"fingerprint": "f2"})
    assert cell_state(run.parent, CELL) == "missing"


@pytest.mark.parametrize("text", ["", '{"schema": 1, "finger', "[]", '{"schema": 1}'])
def test_a_damaged_result_says_what_to_do(run: Path, text: str) -> None:
    (run / "result.json").write_text(text)
    with pytest.raises(DamagedResult, match=r"result.json: damaged .*delete the file"):
        read_result(run)


def test_a_result_of_another_schema_is_refused(run: Path) -> None:
    write_json(run / "result.json", RESULT | {"schema": 2})
    with pytest.raises(DamagedResult, match="schema 2, expected 1"):
        read_result(run)


def test_no_result_and_no_error(run: Path) -> None:
    assert read_result(run) is None
    assert read_error(run) is None


def test_a_write_cut_short_leaves_the_old_file(run: Path) -> None:
    write_json(run / "result.json", RESULT)
    with pytest.raises(TypeError):
        write_json(run / "result.json", {"schema": 1, "broken": object()})
    assert read_result(run) == RESULT
    assert [file.name for file in run.iterdir()] == ["result.json"]


def test_writes_readable_json(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"b": [1]})
    text = (tmp_path / "new" / "a.json").read_text()
    assert json.loads(text) == {"b": [1]}
    assert text.endswith("}\n")


def test_lists_of_numbers_stand_on_one_line(tmp_path: Path) -> None:
    """And only these: texts with brackets and spaces stay as they are."""
    content = {"a": [1, -2.5e-07, None], "b": ["x  [1,  2]", "y"], "c": {"d": [], "e": [[0, 1]]}}
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == content
    assert '"a": [1, -2.5e-07, null],' in text
    assert '"x  [1,  2]"' in text
    assert "[0, 1]" in text
