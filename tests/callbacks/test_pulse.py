"""Signs of life: what is written, how often, and what the time left is measured by."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from bnnbench.callbacks import pulse as module
from bnnbench.callbacks.history import History
from bnnbench.callbacks.pulse import Pulse, epochs_of, running
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.records.position import Position
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False}
BATCH_S = 0.3


class Clock(L.Callback):
    """Time that passes in batches alone, and what was written after each."""

    def __init__(self, folder: Path) -> None:
        self.now, self.file = 100.0, folder / "progress.json"
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += BATCH_S
        content = json.loads(self.file.read_text())
        if not self.seen or content != self.seen[-1]:
            self.seen.append(content)


def fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, later: int | None = 0, **options: Any
) -> tuple[Clock, Pulse]:
    torch.manual_seed(0)
    clock, pulse = Clock(folder), Pulse(folder, later_epochs=later)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    pairs = [(torch.randn(3), torch.tensor(n % 3)) for n in range(40)]
    loader: Any = DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    recipe = Recipe("sgd", lr=0.1, schedule="constant")
    task = Classification(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    callbacks = [pulse, History(), clock]
    trainer = L.Trainer(**QUIET, **options, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(task, loader, loader)
    return clock, pulse


def test_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, _ = fit(tmp_path, monkeypatch, max_epochs=1)
    # ten batches of 0.3 s: the epoch's beginning, then after 1.2 and 2.4 s
    assert [content["batch"] for content in clock.seen] == [0, 4, 8]
    assert [list(content["running"]) for content in clock.seen] == [[]] + 2 * [["loss", "acc"]]


def test_the_time_left_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pulse = fit(tmp_path, monkeypatch, max_epochs=3)
    first = [content for content in clock.seen if content["epoch"] == 0]
    assert {content["left_s"] for content in first} == {None}  # nothing is measured yet
    second = next(content for content in clock.seen if content["epoch"] == 1)
    assert second["left_s"] == pytest.approx(2 * 10 * BATCH_S)
    later = [content["left_s"] for content in clock.seen if content["epoch"] >= 1]
    assert later == sorted(later, reverse=True)
    at_end = pulse.position
    assert (at_end.epoch, at_end.left_s, at_end.max_epochs) == (3, 0.0, 3)
    assert {"test/acc", "train/loss"} <= at_end.metrics.keys()


def test_stages_that_follow_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pulse = fit(tmp_path, monkeypatch, later=5, max_epochs=1)
    assert pulse.position.left_s == pytest.approx(5 * 10 * BATCH_S)
    _, pulse = fit(tmp_path, monkeypatch, later=None, max_epochs=1)
    assert pulse.position.left_s is None


def test_a_disk_that_is_full_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, position: Position) -> None:
        if position.epoch:
            raise OSError(28, "No space left on device")
        original(folder, position)

    original = module.write_position
    monkeypatch.setattr(module, "write_position", full)
    _, pulse = fit(tmp_path, monkeypatch, max_epochs=2)
    assert pulse.position.epoch == 2


@pytest.mark.parametrize(
    ("epochs", "steps", "planned"),
    [(7, -1, 7), (-1, -1, None), (None, -1, None), (-1, 25, 3), (2, 25, 2), (9, 25, 3)],
)
def test_planned_epochs(epochs: int | None, steps: int, planned: int | None) -> None:
    trainer: Any = SimpleNamespace(max_epochs=epochs, max_steps=steps, num_training_batches=10)
    assert epochs_of(trainer) == planned


def test_a_module_of_somebody_else_tells_its_last_loss() -> None:
    module: Any = L.LightningModule()
    assert running(module) == {}
    assert running(module, {"loss": torch.tensor(2.5)}) == {"loss": 2.5}
    assert running(module, {"loss": torch.tensor(float("nan"))}) == {}
