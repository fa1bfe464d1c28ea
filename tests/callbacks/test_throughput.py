"""Seconds and images a second, by a clock that only batches move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from bnnbench.callbacks import throughput as module
from bnnbench.callbacks.history import History
from bnnbench.callbacks.throughput import Throughput
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "max_epochs": 2}


class Clock(L.Callback):
    """Time that passes in batches alone: 2 s in each of training, 100 s in each of evaluation."""

    def __init__(self) -> None:
        self.now = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 2

    def on_validation_batch_start(self, *_: Any) -> None:
        self.now += 100


def test_an_epoch_has_its_seconds_and_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, measured, history = Clock(), Throughput(), History()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    pairs: Any = [(torch.randn(3), torch.tensor(n % 3)) for n in range(18)]
    recipe = Recipe("sgd", lr=0.1, schedule="constant")
    task = Classification(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    assert (measured.epoch_s, measured.images_per_s) == (None, None)
    loader = DataLoader(pairs, batch_size=4)
    L.Trainer(**QUIET, callbacks=[clock, measured, history]).fit(task, loader, loader)
    seconds = 5 * 2 + 5 * 100
    assert history.columns()["epoch_s"] == [seconds, seconds]
    assert history.columns()["images_per_s"] == pytest.approx([18 / 10] * 2)
    assert (measured.epoch_s, measured.images_per_s) == (seconds, 1.8)
