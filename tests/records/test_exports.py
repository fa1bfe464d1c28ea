"""What an export leaves beside a run's result, and how results have it again."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from bnnbench.records.exports import record_export, with_export
from bnnbench.records.schema import check_result
from bnnbench.records.store import read_result_file

ROOT = Path(__file__).parents[2]
RESULT = next((ROOT / "results" / "runs").glob("digits_resnet20_adabin_*.json"))
WITHOUT = json.dumps({"fingerprint": json.loads(RESULT.read_text())["fingerprint"]})
CONTENT = struct.pack("<Q", 3) + b"{ }" + bytes(21)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder with a checkpoint and what was exported of it."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "result.json").write_text(RESULT.read_text())
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "packed.safetensors").write_bytes(CONTENT)
    return tmp_path


def record(run: Path, fingerprint: str | None = None, checkpoint: Path | None = None) -> bool:
    own = json.loads(RESULT.read_text())["fingerprint"]
    where = checkpoint or run / "checkpoints" / "last.ckpt"
    return record_export(run / "packed.safetensors", where, fingerprint or own, "work", half=False)


def test_a_result_has_its_export_and_is_a_result_still(run: Path) -> None:
    assert record(run)
    path = run / "result.json"
    found = with_export(read_result_file(path), path)
    assert found["export"] == {
        "bytes": 32,
        "header_bytes": 11,
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "work": "work",
        "half": False,
    }
    assert check_result(found, "a") == found


def test_another_runs_folder_gets_no_record(run: Path, tmp_path: Path) -> None:
    assert not record(run, fingerprint="f" * 64)
    elsewhere = tmp_path / "a" / "b" / "c" / "x.ckpt"
    assert not record(run, checkpoint=elsewhere)
    assert not (run / "packed.json").exists()


def test_a_record_of_another_run_is_none_of_this_one(run: Path) -> None:
    record(run)
    content = json.loads((run / "packed.json").read_text())
    (run / "packed.json").write_text(json.dumps(content | {"fingerprint": "f" * 64}))
    path = run / "result.json"
    assert "export" not in with_export(read_result_file(path), path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", WITHOUT])
def test_a_damaged_record_says_what_to_do(run: Path, text: str) -> None:
    (run / "packed.json").write_text(text)
    path = run / "result.json"
    with pytest.raises(ValueError, match=r"packed\.json is damaged .* export again"):
        with_export(read_result_file(path), path)


def test_without_one_a_result_is_as_it_is(run: Path) -> None:
    result = read_result_file(run / "result.json")
    assert with_export(result, run / "result.json") is result
    record(run)
    assert with_export(result, run / "other.json") is result
