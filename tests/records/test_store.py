"""Runs on disk."""

import json
from pathlib import Path

import pytest

from bnnbench.records.store import (
    Cell,
    DamagedResult,
    cell_state,
    logged_by,
    mark_logged,
    read_error,
    read_identity,
    read_result,
    write_identity,
    write_json,
)

CELL = Cell({"quantizer": "adabin"}, "digits_adabin", "f1" * 32)
OTHER = "f2" * 32
RESULT = {
    "schema": 2,
    "name": CELL.run,
    "fingerprint": CELL.fingerprint,
    "config": {},
    "choices": {"quantizer": "adabin"},
    "seed": 0,
    "overrides": [],
    "command": "python src/train.py",
    "tags": [],
    "source_hash": "a" * 64,
    "source_proofs": [],
    "data_stamp": None,
    "structure": {},
    "bits": {"w": 1, "a": 1},
    "bases": {"w": 1, "a": 1},
    "headline": "test/acc",
    "metrics": {"last": {"test/acc": 0.5}, "best": {}},
    "classes": None,
    "history": {},
    "epochs": 1,
    "planned_epochs": 1,
    "ended": None,
    "world_size": 1,
    "operations": {},
    "versions": {},
    "git": {"commit": None, "dirty": None},
}


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
    write_json(run / "result.json", RESULT | {"fingerprint": OTHER})
    assert cell_state(run.parent, CELL) == "missing"


@pytest.mark.parametrize("text", ["", '{"schema": 2, "finger', "[]", '{"schema": 2}'])
def test_a_damaged_result_says_what_to_do(run: Path, text: str) -> None:
    (run / "result.json").write_text(text)
    with pytest.raises(DamagedResult, match=r"result.json: damaged .*delete the file"):
        read_result(run)


def test_a_result_of_another_schema_is_refused(run: Path) -> None:
    write_json(run / "result.json", RESULT | {"schema": 3})
    with pytest.raises(DamagedResult, match="schema 3, this version knows 1 and 2"):
        read_result(run)


def test_a_result_without_metrics_is_no_result(run: Path) -> None:
    write_json(run / "result.json", RESULT | {"metrics": {"last": {}, "best": {}}})
    with pytest.raises(DamagedResult, match="without metrics"):
        read_result(run)
    assert cell_state(run.parent, CELL) == "damaged"


def test_what_is_no_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_says_whose_it_is(run: Path) -> None:
    assert read_identity(run) is None
    identity = {"name": CELL.run, "fingerprint": CELL.fingerprint, "data_stamp": "sha256:1"}
    write_identity(run, identity)
    assert read_identity(run) == identity
    write_json(run / "result.json", RESULT)
    assert read_identity(run) == identity | {"data_stamp": None}  # the result's word counts


def test_loggers_are_remembered(run: Path) -> None:
    assert logged_by(run) == []
    for name in ("wandb", "csv", "wandb"):
        mark_logged(run, name)
    assert logged_by(run) == ["csv", "wandb"]


@pytest.mark.parametrize("text", ["", "null", "5", "{", '["a", 3]'])
def test_a_damaged_list_of_loggers_is_a_short_one(run: Path, text: str) -> None:
    (run / "logged.json").write_text(text)
    assert set(logged_by(run)) <= {"a"}
    mark_logged(run, "csv")
    assert "csv" in logged_by(run)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"name": 1, "fingerprint": 2}', "{"])
def test_a_damaged_identity_says_what_to_do(run: Path, text: str) -> None:
    (run / "identity.json").write_text(text)
    with pytest.raises(DamagedResult, match=r"identity.json: damaged .*delete the file"):
        read_identity(run)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"metrics": {"last": {"test/acc": 7.5}, "best": {}}}, "no share of 1"),
        ({"history": {"epoch": [0], "test/acc": []}}, "not equally long"),
    ],
)
def test_what_cannot_be_is_no_result(run: Path, changed: dict, words: str) -> None:
    write_json(run / "result.json", RESULT | changed)
    with pytest.raises(DamagedResult, match=words):
        read_result(run)


def test_no_result_and_no_error(run: Path) -> None:
    assert read_result(run) is None
    assert read_error(run) is None


def test_a_write_cut_short_leaves_the_old_file(run: Path) -> None:
    write_json(run / "result.json", RESULT)
    with pytest.raises(TypeError):
        write_json(run / "result.json", {"schema": 2, "broken": object()})
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
