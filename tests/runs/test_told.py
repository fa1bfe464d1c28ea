"""The line that a run begins with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.runs.reuse import Run
from bnnbench.runs.stages import stages
from bnnbench.runs.told import beginning, known_epoch, later_epochs

Compose = Callable[..., DictConfig]
DATA: Any = SimpleNamespace(train_images=1437)
XNOR = ("quantizer=xnor", "backbone=resnet20", "trainer.max_epochs=36")
CPU = "cpu: some, 1 thread"


def told(cfg: DictConfig, finished: int = 0, device: str = CPU) -> str:
    (stage,) = stages(cfg)
    return beginning(stage, Run(cfg, Path(cfg.paths.output_dir)), DATA, finished, device)


def leave(cfg: DictConfig, device: str = CPU, **changed: Any) -> str:
    """A finished run of a config, of 2 s an epoch; its name."""
    run = Run(cfg, Path(cfg.paths.runs_dir))
    result = {"config": run.config, "device": device, "epochs": 10, "time": {"wall_s": 20.0}}
    folder = Path(cfg.paths.runs_dir) / run.name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | changed))
    return run.name


def test_what_on_what_for_how_long_and_where(compose: Compose, tmp_path: Path) -> None:
    cfg = compose(*XNOR)
    assert told(cfg) == (
        "training resnet20 xnor (loss task, recipe unified, seed 0) on digits, 1,437 images: "
        f"36 epochs; in {tmp_path}/run"
    )
    assert told(cfg, finished=30).startswith("resuming resnet20 xnor (")
    assert ": 6 of 36 epochs are left; in " in told(cfg, finished=30)
    assert ": 1 epoch; in " in told(compose(*XNOR, "trainer.max_epochs=1"))


def test_minutes_as_in_a_run_of_its_kind(compose: Compose) -> None:
    cfg = compose(*XNOR)
    name = leave(compose(*XNOR, "seed=1", "trainer.max_epochs=10", "recipe.lr=0.1"))
    assert f": 36 epochs, about 72 s as in {name}; in " in told(cfg)
    assert f": 6 of 36 epochs are left, about 12 s as in {name}; in " in told(cfg, finished=30)
    assert "about" not in told(cfg, device="cuda: other")


@pytest.mark.parametrize(
    "other", ["dataset.batch_size=32", "backbone.shortcut=conv", "quantizer=bnn", "loss=bonn"]
)
def test_a_run_of_another_kind_says_nothing(compose: Compose, other: str) -> None:
    leave(compose(*XNOR, "seed=1", other))
    assert "about" not in told(compose(*XNOR))


@pytest.mark.parametrize("changed", [{"epochs": 0}, {"time": None}, {"config": 3}, {"device": 1}])
def test_a_result_without_a_time_says_nothing(compose: Compose, changed: dict[str, Any]) -> None:
    leave(compose(*XNOR, "seed=1"), **changed)
    assert "about" not in told(compose(*XNOR))


def test_stages(compose: Compose) -> None:
    cfg = compose(*XNOR, "recipe=two_step", "trainer.max_epochs=10")
    first, second = stages(cfg)
    run = Run(cfg, Path(cfg.paths.output_dir))
    assert f"(stage {first.name}, loss" in beginning(first, run, DATA, 0, CPU)
    assert later_epochs([first, second]) == sum(
        each.cfg.trainer.max_epochs for each in (first, second)
    )
    assert later_epochs([]) == 0
    assert known_epoch(first, run, CPU) is None


def test_a_run_limited_by_steps(compose: Compose) -> None:
    cfg = compose(*XNOR[:2], "trainer.max_epochs=-1", "+trainer.max_steps=5000")
    assert ": 5,000 steps; in " in told(cfg)
    assert later_epochs(stages(cfg)) is None
