"""The state of each job, from the files of its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bnnbench.records.position import Position, write_position
from bnnbench.runs.forced import workspace
from bnnbench.sweep.estimate import time_left
from bnnbench.sweep.watched import Watched, epoch_of, left_of, reused_cell

RESULT: dict[str, Any] = {
    "headline": "test/acc",
    "metrics": {"last": {"test/acc": 0.5112}},
    "epochs": 4,
    "time": {"wall_s": 9.5},
}


def write(folder: Path, name: str, content: object = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_a_job_from_beginning_to_end(tmp_path: Path) -> None:
    job = Watched("xnor", tmp_path, epochs=4)
    assert (job.look().state, epoch_of(job.look()), left_of(job.look())) == (
        "waiting",
        "\N{EN DASH}/4",
        "\N{EN DASH}",
    )
    write(tmp_path, "worker.json", {"pid": 1})
    assert job.look().state == "starting"
    write_position(tmp_path, Position(0, 4, 5, 20, running={"loss": 2.5, "acc": 0.1}))
    cell = job.look()
    assert (cell.state, cell.metric, epoch_of(cell), left_of(cell)) == (
        *("training", "loss 2.500"),
        *("1/4", "\N{EN DASH}"),
    )
    write_position(tmp_path, Position(2, 4, metrics={"test/acc": 0.5}, epoch_s=3, left_s=7))
    cell = job.look()
    assert (cell.metric, epoch_of(cell), left_of(cell)) == ("test acc 50.0 %", "3/4", "0:07")
    write_position(tmp_path, Position(4, 4, 1, 2, evaluating=True))
    assert job.look().state == "evaluating"
    write(tmp_path, "result.json", RESULT)
    cell = job.look()
    assert (cell.state, cell.metric, cell.train_s) == ("finished", "test acc 51.1 %", 9.5)
    assert (epoch_of(cell), left_of(cell)) == ("4", "")


def test_one_that_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "progress.json", {"epoch": 3, "max_epochs": 10})
    write(tmp_path, "worker.json", {"pid": 1})
    job = Watched("xnor", tmp_path)
    assert job.look().state == "waiting"  # these are of an earlier call
    os.utime(tmp_path / "worker.json", (1, 1))  # written anew
    assert job.look().state == "starting"
    write_position(tmp_path, Position(3, 10, resumed=3))
    assert job.look().state == "resumed"


def test_one_whose_twin_is_trained_first(tmp_path: Path) -> None:
    job, twin = Watched("xnor", tmp_path / "xnor", epochs=4), tmp_path / "fp32"
    write(job.folder, "worker.json", {"pid": 1})
    write_position(job.folder, Position(first=str(twin)))
    cell = job.look()
    assert (cell.state, epoch_of(cell), cell.metric) == ("starting", "\N{EN DASH}/4", "twin")
    twin.mkdir()
    write_position(twin, Position(2, 16, metrics={"test/acc": 0.5}, epoch_s=3, left_s=42))
    cell = job.look()
    assert (cell.state, epoch_of(cell), cell.metric) == (
        *("starting", "\N{EN DASH}/4"),
        "twin 3/16 test acc 50.0 %",
    )
    assert time_left([cell], 1) == 42 + 4 * 3
    write_position(job.folder, Position(0, 4, 5, 20, running={"loss": 2.5}))
    assert job.look().state == "training"


def test_one_that_fails_and_one_that_died(tmp_path: Path) -> None:
    job = Watched("xnor", tmp_path)
    for name in ("worker.json", "progress.json"):
        write(tmp_path, name, {"epoch": 0, "max_epochs": 2})
    (tmp_path / "worker.json").unlink()  # its process died: it is launched again
    assert job.look().state == "waiting"
    (tmp_path / "error.txt").write_text("Traceback ...\nValueError: no\n\n")
    assert (job.look().state, job.look().why) == ("failed", "ValueError: no")


def test_a_forced_one_says_where_it_is_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "result.json", RESULT)
    write(tmp_path, "progress.json", {"epoch": 4, "max_epochs": 4})
    job = Watched("xnor", tmp_path)
    write(tmp_path, "worker.json", {"pid": 1})
    workspace(tmp_path).mkdir()
    write_position(workspace(tmp_path), Position(1, 4))
    assert epoch_of(job.look()) == "2/4"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"metrics": 3, "headline": "test/acc"}', '{"time": "long"}']
)
def test_a_result_that_is_damaged_is_an_end_all_the_same(tmp_path: Path, content: str) -> None:
    job = Watched("xnor", tmp_path)
    (tmp_path / "result.json").write_text(content)
    assert (job.look().state, job.look().metric) == ("finished", "")


def test_a_result_from_before() -> None:
    assert reused_cell("xnor", RESULT).state == "reused"
    assert reused_cell("xnor", RESULT | {"headline": None, "time": None}).metric == ""
