"""Every method and loss on a network of two blocks, for tests that train a step of each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
from omegaconf import DictConfig

from bnnbench.backbones import resnet
from bnnbench.config import options
from bnnbench.runs.build import build_task
from bnnbench.runs.teacher import build_teacher
from bnnbench.tasks.base import Task

NEEDS: dict[str, list[str]] = {
    "loss=pcnn": ["quantizer=pcnn"],
    "loss=mcn": ["quantizer=mcn"],
    "loss=bbb": ["quantizer=bbb"],
    **{f"loss={x}": ["teacher=joint"] for x in ("kd", "distributional", "attention", "hints")},
    "quantizer=wage": ["recipe=native"],
    "quantizer=bbb": ["loss=bbb"],
    "quantizer=bayesbinn": ["recipe=bayesbinn"],
}
CLASSIFIERS = [name for name in options("loss") if name != "multibox_bidet"]
CHOICES = [f"quantizer={q}" for q in options("quantizer")] + [f"loss={x}" for x in CLASSIFIERS]
SHORT = ["backbone=resnet20", "trainer.accelerator=cpu", "logger=none"]


def overrides(choice: str) -> list[str]:
    """Of a short run on digits of a choice, with what it needs beside it."""
    return [*SHORT, choice, *NEEDS.get(choice, [])]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a ResNet-20 of two blocks of 16 and 32 channels, which has all that a large one has."""

    def small(quantizer: Any, **rest: Any) -> resnet.ResNet:
        return resnet._resnet("resnet20", (16, 32), (1, 1), {"quantizer": quantizer, **rest})

    monkeypatch.setattr(resnet, "resnet20", small)


def task_of(cfg: DictConfig) -> Task:
    """The run's network with its losses and its recipe, as it starts."""
    Path(cfg.paths.output_dir).mkdir(parents=True, exist_ok=True)
    return build_task(cfg, teacher=build_teacher(cfg, {}))


def stub_trainer(*optimizers: Any) -> Any:
    """What callbacks ask a trainer in the first step of an epoch of nine."""
    return SimpleNamespace(
        optimizers=list(optimizers),
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
        num_training_batches=9,
        estimated_stepping_batches=9,
        world_size=1,
        global_step=0,
        current_epoch=0,
        max_epochs=1,
        max_steps=-1,
        precision="32-true",
        is_last_batch=False,
        callback_metrics={},
        datamodule=None,
    )


def begin(trainer: Any, task: Task, callbacks: list[L.Callback]) -> None:
    """Let callbacks hear that a training begins."""
    task.train()
    for hook in ("on_fit_start", "on_train_start"):
        for callback in callbacks:
            getattr(callback, hook)(trainer, task)
