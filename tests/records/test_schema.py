"""The form of results: the committed ones pass, damaged ones are named, undefined is null."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from bnnbench.records import schema
from bnnbench.records.schema import DamagedResult, check_record, check_result, finite, migrate

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted((ROOT / "results" / "runs").glob("*.json"))
OLD_KEYS = ("name", "fingerprint", "source_hash", "config", "operations", "history", "epochs")


def old() -> dict[str, Any]:
    """A result as schema 1 had it."""
    trainer = {"max_epochs": 2, "_target_": "lightning.Trainer"}
    return {
        "schema": 1,
        "name": "digits_resnet20_adabin_task_unified_s0_01234567",
        "fingerprint": "0123456789abcdef" * 4,
        "config": {"trainer": trainer, "seed": 0},
        "choices": {"quantizer": "adabin"},
        "seed": 0,
        "overrides": ["quantizer=adabin"],
        "command": "python src/train.py quantizer=adabin",
        "tags": [],
        "source_hash": "ab" * 32,
        "structure": {"shortcut": "conv"},
        "bits": {"w": 1, "a": 1},
        "bases": {"w": 1, "a": 1},
        "metrics": {
            "last": {"test/acc": 0.5, "test/loss": 1.5},
            "best": {"test/acc": 0.75, "epoch": 0},
        },
        "history": {"epoch": [0, 1], "test/acc": [0.75, 0.5]},
        "epochs": 2,
        "train_images": 1437,
        "test_images": 360,
        "operations": {"ops": 1.5, "params": 3},
        "statistics": {"layers": []},
        "time": {"wall_s": 2.0, "train_s": 1.0, "images_per_s": 1437, "peak_memory_mb": 300.0},
        "precision": "32-true",
        "compiled": False,
        "device": "cpu",
        "versions": {"torch": "2.9"},
        "git": {"commit": None, "dirty": None},
    }


def new() -> dict[str, Any]:
    return check_result(old(), "old.json")


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_every_committed_result_passes_and_keeps_its_numbers(file: Path) -> None:
    content = json.loads(file.read_text())
    found = check_result(content, str(file))
    assert found["schema"] == 2
    assert all(found[key] == content[key] for key in OLD_KEYS)
    assert found["metrics"] == content["metrics"]
    assert found["headline"] in found["metrics"]["last"]
    assert check_result(found, str(file)) is found  # nothing is copied


def test_the_page_says_what_the_schema_says() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    written = page.split("<!-- schema -->\n")[1].split("\n<!-- /schema -->")[0]
    assert written == schema.describe()


def test_there_are_committed_results() -> None:
    assert len(COMMITTED) >= 123


def test_a_check_takes_less_than_five_milliseconds() -> None:
    largest = max(COMMITTED, key=lambda file: file.stat().st_size)
    content = check_result(json.loads(largest.read_text()), "a")
    seconds = []
    for _ in range(5):
        start = time.process_time()
        check_result(content, "a")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.005


def test_an_old_result_gains_what_is_known_and_null_for_the_rest() -> None:
    content = old()
    found = migrate(content)
    gained = {key: found[key] for key in found if key not in content}
    assert gained == {
        "headline": "test/acc",
        "classes": None,
        "planned_epochs": 2,
        "ended": None,
        "world_size": 1,
        "data_stamp": None,
        "source_proofs": [],
    }
    assert {key: found[key] for key in content} == content | {"schema": 2}


def test_old_numbers_that_are_none_become_null() -> None:
    content = old()
    content["metrics"]["last"] = {"test/map": math.nan, "test/coco_map": -1.0, "test/loss": 2.0}
    content["history"]["test/map"] = [0.1, math.nan]
    content["statistics"]["layers"] = [{"kurtosis": [math.inf]}]
    found = check_result(content, "a")
    assert found["metrics"]["last"] == {"test/map": None, "test/coco_map": None, "test/loss": 2.0}
    assert found["history"]["test/map"] == [0.1, None]
    json.dumps(found, allow_nan=False)


def test_an_old_result_on_part_of_the_data_says_so() -> None:
    content = old()
    content["config"]["trainer"] |= {"limit_train_batches": 3, "limit_val_batches": 1.0}
    found = check_result(content, "a")
    assert found["ended"] == "limit_train_batches=3"
    assert found["train_images"] is None  # it stored the size of the set


def test_an_old_run_in_stages_planned_the_sum() -> None:
    content = old()
    keys = ("metrics", "epochs", "time", "config", "statistics")
    part = {key: content[key] for key in keys}
    content["stages"] = [{"name": name, **deepcopy(part)} for name in ("one", "two")]
    assert check_result(content, "a")["planned_epochs"] == 4
    content["stages"][0]["config"]["trainer"]["max_epochs"] = -1
    assert check_result(content, "a")["planned_epochs"] is None


def test_an_old_count_of_operations_is_a_result() -> None:
    content = {key: value for key, value in old().items() if key not in ("time", "device")}
    content |= {"metrics": {"last": {}, "best": {}}, "history": {}, "epochs": 0}
    assert check_result(content, "a")["headline"] is None


DAMAGE = {
    "fingerprint: String should match": lambda r: r.update(fingerprint="f1"),
    "metrics.last: a result without metrics": lambda r: r["metrics"].update(last={}),
    "headline: val/acc is not among metrics.last": lambda r: r.update(headline="val/acc"),
    "headline: None is not among metrics.last": lambda r: r.update(headline=None),
    "headline: Input should be": lambda r: r.update(headline="test/loss"),
    "metrics.last.test/acc": lambda r: r["metrics"]["last"].update({"test/acc": math.nan}),
    "metrics.last.test/loss": lambda r: r["metrics"]["last"].update({"test/loss": "1.5"}),
    "history.test/acc.1": lambda r: r["history"].update({"test/acc": [0.5, math.inf]}),
    "seed: Input should be a valid integer": lambda r: r.update(seed="0"),
    "operations: Field required": lambda r: r.pop("operations"),
    "config: Field required": lambda r: r.pop("config"),
    "acuracy: Extra inputs": lambda r: r.update(acuracy=0.5),
    "stage: Extra inputs": lambda r: r.update(stage="one"),
    "data_stamp: String should match": lambda r: r.update(data_stamp="sha256:1"),
    "schema 3, this version knows": lambda r: r.update(schema=3),
    "not a result": lambda r: r.pop("schema"),
    "classes: names and accuracy": lambda r: r.update(classes={"names": ["a"], "accuracy": []}),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_result_names_file_field_and_remedy(reason: str) -> None:
    content = deepcopy(new())
    DAMAGE[reason](content)
    with pytest.raises(DamagedResult, match=r"^runs/a/result.json: damaged .*delete the file") as e:
        check_result(content, "runs/a/result.json")
    assert reason in str(e.value)


@pytest.mark.parametrize("content", [[], None, "text", {}, {"schema": 1}, {"schema": 2}])
def test_other_json_is_no_result(content: Any) -> None:
    with pytest.raises(DamagedResult, match="delete the file to run it again"):
        check_result(content, "result.json")


def test_an_undefined_headline_is_null_and_still_a_result() -> None:
    content = new()
    content["metrics"]["last"]["test/acc"] = None
    assert check_result(content, "a")["metrics"]["last"]["test/acc"] is None


def test_a_stages_record_has_its_name() -> None:
    record = new() | {"stage": "one"}
    assert check_record(record, "stage.json")["stage"] == "one"
    with pytest.raises(DamagedResult, match="stage: Field required"):
        check_record(new(), "stage.json")


def test_nothing_infinite_is_left_in_nested_values() -> None:
    value = {"a": [1.5, math.nan, (2, -math.inf)], "b": {"c": math.inf, "d": True, "e": "nan"}}
    plain = {"a": [1.5, None, [2, None]], "b": {"c": None, "d": True, "e": "nan"}}
    assert finite(value) == plain


def test_every_field_is_described() -> None:
    rows = schema.describe().splitlines()
    assert rows[:2] == ["| field | type | meaning |", "|---|---|---|"]
    cells = [row.strip("| ").split(" | ") for row in rows[2:]]
    assert all(len(row) == 3 and len(row[2]) > 5 and "None" not in row[2] for row in cells)
    described = {row[0].strip("`") for row in cells}
    assert set(new()) <= described
    assert {"metrics.last", "classes.accuracy", "stages[].epochs", "stage"} <= described
    assert "| `metrics.last` | object of number or null |" in schema.describe()


def test_reading_results_loads_no_torch_and_the_package_no_pydantic() -> None:
    code = (
        "import sys, bnnbench; assert 'pydantic' not in sys.modules\n"
        "import bnnbench.records.schema; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=True)
