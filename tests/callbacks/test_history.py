"""The history: images of all processes, metrics without a value, the best epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException
from torch.utils.data import DataLoader

from bnnbench.callbacks import history as module
from bnnbench.callbacks.history import History
from bnnbench.callbacks.pulse import Pulse
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "max_epochs": 2}


class Odd(Classification):
    """Logs a metric that is no number, as a detector may that has nothing to find."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("test/odd", torch.tensor(math.nan if self.trainer.current_epoch else 1.0))


class Counts(L.Callback):
    """Leaves what each process knows at the end."""

    def __init__(self, folder: Path, history: History) -> None:
        self.folder, self.history = folder, history

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        torch.set_num_threads(1)
        found = [self.history.images, pl_module.eval_images]
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


def fit(folder: Path, *more: L.Callback, **options: Any) -> History:
    torch.manual_seed(0)
    pairs = [(torch.randn(3), torch.tensor(n % 3)) for n in range(16)]
    loader: Any = DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    recipe = Recipe("sgd", lr=0.1, schedule="constant")
    task = Odd(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    history = History()
    callbacks = [history, Counts(folder, history), *more]
    L.Trainer(**QUIET, **options, callbacks=callbacks).fit(task, loader, loader)
    return history


def counts(folder: Path) -> list[list[int]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("[01].json"))]


def test_two_processes_have_seen_what_one_has(tmp_path: Path) -> None:
    try:
        fit(tmp_path, devices=2, strategy="ddp_spawn")  # forks may wait for ever
    except ProcessExitedException as error:  # gloo's threads may abort a process that is leaving
        if error.signal_name != "SIGABRT":
            raise
    assert counts(tmp_path) == [[32, 16], [32, 16]]


def test_no_number_is_null_in_history_progress_and_never_the_best(tmp_path: Path) -> None:
    history = fit(tmp_path, Pulse(tmp_path))
    assert counts(tmp_path) == [[32, 16]]
    assert history.columns()["test/odd"] == [1.0, None]
    assert history.best("test/odd") == {"test/odd": 1.0, "epoch": 0}
    progress = json.loads((tmp_path / "progress.json").read_text(), parse_constant=int)
    assert progress["metrics"]["test/odd"] is None
    assert not history.cut


class Clock(L.Callback):
    """Time that passes in batches alone: 1 s in each of training, 100 s in each of evaluation.

    The process has the processor for a quarter of it.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 4

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 1

    def on_validation_batch_start(self, *_: Any) -> None:
        self.now += 100


def test_evaluation_is_no_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    history = fit(tmp_path, clock)
    assert history.train_s == 2 * 4
    assert history.wall_s == 2 * (4 + 4 * 100)
    assert history.cpu_s == 2 * 4 / 4


def test_memory_is_of_this_training_and_the_largest_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(module, "restart_peak_memory", lambda: told.append("anew") is None)
    monkeypatch.setattr(module, "peak_memory_mb", lambda: 300.0 + len(told))
    history = fit(tmp_path)
    assert (history.memory_mb, told) == (301.0, ["anew"])
    history.load_state_dict(history.state_dict() | {"memory_mb": 500.0})
    history.on_fit_start(None, None)  # type: ignore[arg-type]
    assert history.state_dict()["memory_mb"] == 500.0
    monkeypatch.setattr(module, "restart_peak_memory", lambda: False)
    assert fit(tmp_path).memory_mb is None


def test_processor_time_is_unknown_where_a_part_of_it_is(tmp_path: Path) -> None:
    """A run goes on from a checkpoint of before it was measured."""
    before = History().state_dict()
    del before["cpu_s"]

    class Before(L.Callback):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            next(c for c in trainer.callbacks if isinstance(c, History)).load_state_dict(before)  # type: ignore[attr-defined]

    history = fit(tmp_path, Before())
    assert history.cpu_s is None
    assert history.train_s > 0
