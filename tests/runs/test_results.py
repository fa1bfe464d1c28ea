"""What a run writes down of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bnnbench.records.schema import check_record, check_result
from bnnbench.runs import results
from bnnbench.runs.build import build_task
from bnnbench.runs.reuse import Run

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "overrides",
    [
        ["quantizer=fp32"],
        ["quantizer=abcnet"],
        ["quantizer=ienet"],
        ["quantizer=pcnn"],
        ["quantizer=dorefa", "backbone.first=binary", "backbone.last=binary"],
    ],
)
def test_bases_are_the_methods_and_a_count_is_a_whole_result(
    overrides: list[str], compose: Compose
) -> None:
    cfg = compose("backbone=resnet20", *overrides)
    task = build_task(cfg)
    spec = task.net.structure.quantizer  # type: ignore[union-attr]
    sides = spec.weight((1, 1, 1, 1)), spec.activation(1)
    result = check_result(
        results.counted(Run(cfg, Path(cfg.paths.output_dir)), task, {"ops": 1.5}), "result.json"
    )
    assert result["bases"] == {"w": sides[0].bases, "a": sides[1].bases}
    assert (result["epochs"], result["headline"], result["ended"]) == (0, None, None)
    assert result["operations"] == {"ops": 1.5}


def test_stages_are_one_result(compose: Compose) -> None:
    cfg = compose("backbone=resnet20")
    counted = results.counted(Run(cfg, Path(cfg.paths.output_dir)), build_task(cfg), {"ops": 1.5})
    time = {"wall_s": 2.0, "train_s": 1.0, "images_per_s": 3.0, "train_memory_mb": 4.0}
    before, time = time, time | {"cpu_s": 0.75}
    unmeasured = {key: value for key, value in time.items() if key != "train_memory_mb"}
    larger = time | {"train_memory_mb": 7.0}
    records = [
        counted
        | {"stage": name, "ended": ended, "planned_epochs": planned, "epochs": 1}
        | {"headline": "test/acc", "metrics": {"last": {"test/acc": 0.5}, "best": {}}}
        | {"history": {"epoch": [0]}, "time": time, "statistics": {"layers": []}}
        for name, ended, planned in (("a", None, 2), ("b", "stopped", 3), ("c", "x", 4))
    ]
    for record in records:
        check_record(record, "stage.json")
    result = check_result(results.combined(records), "result.json")
    assert (result["ended"], result["planned_epochs"], result["epochs"]) == ("stopped", 9, 3)
    assert (result["time"]["train_s"], result["time"]["cpu_s"]) == (3.0, 2.25)
    assert result["time"]["train_memory_mb"] == 4.0
    middle = [records[0], records[1] | {"time": larger}, records[2]]
    assert results.combined(middle)["time"]["train_memory_mb"] == 7.0
    old = [records[0] | {"time": before}, *records[1:]]
    assert results.combined(old)["time"]["cpu_s"] is None
    assert (
        results.combined([records[0] | {"time": unmeasured}, records[1]])["time"]["train_memory_mb"]
        is None
    )
    unknown = [records[0] | {"planned_epochs": None}, records[1]]
    assert results.combined(unknown)["planned_epochs"] is None
