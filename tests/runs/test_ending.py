"""What a result says of a run that saw less than its config asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from bnnbench.callbacks.history import History
from bnnbench.records.schema import check_result
from bnnbench.runs import results
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.reuse import Run

Compose = Callable[..., DictConfig]
PLAIN = ["quantizer=xnor", "backbone=resnet20", "trainer.accelerator=cpu", "logger=none"]
PLAIN += [
    "callbacks.best=null",
    "callbacks.last=null",
    "callbacks.statistics=null",
    "compile=false",
]
PLAIN += ["dataset.batch_size=64", "trainer.max_epochs=2"]
ENOUGH = "+trainer.limit_train_batches=22"  # 1437 images are 22 batches of 64 and 29 images
STOP = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: test/loss, "
STOP += "stopping_threshold: 1000.0}"


class Plain(torch.nn.Module):
    """Stands for a network that costs nothing; everything else is as in a run."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.structure = net.structure
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def run(cfg: DictConfig, *more: L.Callback) -> dict[str, Any]:
    data = build_datamodule(cfg)
    task = build_task(cfg, data.evaluates_on)
    task.net = Plain(task.net)
    task._layers = []
    trainer = build_trainer(cfg, Path(cfg.paths.output_dir), quiet=True)
    trainer.callbacks += more  # type: ignore[attr-defined]
    trainer.fit(task, data)
    evaluate = trainer.test if data.evaluates_on == "test" else trainer.validate
    last = evaluate(task, data, verbose=False)[0]
    measured = results.measured(cfg, task, data, trainer, last)
    record = (
        results.identity(Run(cfg, Path(cfg.paths.output_dir)), task)
        | measured
        | {"operations": {"ops": 1.0}}
    )
    return check_result(record, "result.json")


def told(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result[key] for key in ("ended", "epochs", "train_images", "test_images"))


@pytest.mark.parametrize("override", ["seed=0", ENOUGH, "+trainer.limit_test_batches=1000"])
def test_a_whole_run_says_nothing(override: str, compose: Compose) -> None:
    result = run(compose(*PLAIN, override))
    assert told(result) == (None, 2, 1437, 360)
    assert (result["planned_epochs"], result["world_size"]) == (2, 1)


LIMITED = {
    "+trainer.limit_train_batches=3": ("limit_train_batches=3", 2, 192, 360),
    "+trainer.limit_train_batches=0.5": ("limit_train_batches=0.5", 2, 704, 360),
    "+trainer.limit_val_batches=1": ("limit_val_batches=1", 2, 1437, 360),
    "+trainer.overfit_batches=2": ("overfit_batches=2", 2, 128, 360),
    "+trainer.fast_dev_run=2": ("fast_dev_run=2", 1, 128, 180),
    "+trainer.max_steps=30": ("max_steps=30", 2, 960, 360),
}


@pytest.mark.parametrize("override", LIMITED)
def test_a_limit_is_named_and_the_images_are_those_seen(override: str, compose: Compose) -> None:
    result = run(compose(*PLAIN, "+dataset.eval_batch_size=100", override))
    assert told(result) == LIMITED[override]
    assert result["planned_epochs"] == 2


def test_several_reasons_are_joined(compose: Compose) -> None:
    limits = ["+trainer.limit_train_batches=3", "+trainer.limit_test_batches=1"]
    result = run(compose(*PLAIN, "+dataset.eval_batch_size=100", *limits))
    # four batches of 90 images: evaluation evens its batches out
    reason = "limit_train_batches=3; limit_test_batches=1"
    assert told(result) == (reason, 2, 192, 90)


def test_a_limit_on_the_held_out_part(compose: Compose) -> None:
    overrides = ["dataset.val_fraction=0.5", "+trainer.limit_val_batches=1"]
    result = run(compose(*PLAIN, *overrides, "+dataset.eval_batch_size=359"))
    assert told(result)[0] == "limit_val_batches=1"
    assert result["test_images"] < 719
    whole = run(compose(*PLAIN, *overrides, "+dataset.eval_batch_size=1000"))
    assert told(whole) == (None, 2, 719, 718)


class Wait(L.Callback):
    """Moves a timer's clock on, in the middle of an epoch."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        timer = next(c for c in trainer.callbacks if hasattr(c, "time_remaining"))
        if trainer.global_step == 31:
            timer._offset += 3600


def test_a_run_ended_by_time_tells_its_images(compose: Compose) -> None:
    result = run(compose(*PLAIN, "+trainer.max_time='00:01:00:00'"), Wait())
    reason, epochs, images, evaluated = told(result)
    assert (reason, epochs, evaluated) == ("max_time=00:01:00:00", 2, 360)
    assert images in (31 * 32, 32 * 32)  # one or two half epochs' steps, whichever looks first


def test_time_that_was_enough_is_no_reason(compose: Compose) -> None:
    assert told(run(compose(*PLAIN, "+trainer.max_time='00:01:00:00'")))[0] is None


def test_an_early_stop_between_epochs_has_seen_whole_ones(compose: Compose) -> None:
    result = run(compose(*PLAIN, STOP))
    assert told(result) == ("early_stop: test/loss", 1, 1437, 360)


def test_an_early_stop_that_came_too_late_is_no_reason(compose: Compose) -> None:
    assert told(run(compose(*PLAIN, STOP, "trainer.max_epochs=1")))[0] is None


def test_only_what_stopped_it_is_named(compose: Compose) -> None:
    """A clock and an early stop in one run: each in turn is the one that did not."""
    never = STOP.replace("1000.0", "-1.0")
    clock = "+trainer.max_time='00:01:00:00'"
    assert told(run(compose(*PLAIN, STOP, clock)))[0] == "early_stop: test/loss"
    assert told(run(compose(*PLAIN, never, clock), Wait()))[0] == "max_time=00:01:00:00"


class Stop(L.Callback):
    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, i: int
    ) -> None:
        trainer.should_stop = i == 4


def test_anything_else_that_stopped_it(compose: Compose) -> None:
    assert told(run(compose(*PLAIN), Stop())) == ("stopped", 1, 320, 360)


STEPS = ["+recipe.steps=30", "trainer.max_epochs=-1"]


def test_a_recipe_of_steps_is_whole_with_its_steps(compose: Compose) -> None:
    """Also where the last epoch is not: the training set is all of it."""
    result = run(compose(*PLAIN, *STEPS))
    assert told(result) == (None, 2, 1437, 360)
    assert result["planned_epochs"] is None
    shorter = run(compose(*PLAIN, *STEPS, "+trainer.max_steps=11"))
    assert told(shorter) == ("max_steps=11", 1, 704, 360)


def test_a_resumed_history_goes_on_and_takes_the_state_of_an_older_one() -> None:
    history = History()
    old = {"epochs": [{"epoch": 0, "test/acc": float("nan")}], "train_s": 1.0, "wall_s": 2.0}
    history.load_state_dict(old | {"images": 64})
    assert (history.images, history.cut) == (64, False)
    assert history.best("test/acc") == {}
    again = History()
    again.load_state_dict(history.state_dict())
    assert vars(again) == vars(history)
