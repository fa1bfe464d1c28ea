"""No training step makes a GPU wait: every training step of every method and loss is trapped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from bnnbench.runs import build

from ..small import CHOICES, overrides, shrink, task_of
from ..trapped import Trap, Trapped

Compose = Callable[..., DictConfig]
STEPS = ["trainer.max_epochs=2", "+trainer.limit_train_batches=6", "+trainer.limit_val_batches=1"]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what weights go through on a GPU, and keep what is told once a second from being due."""
    shrink(monkeypatch)
    for name, module in list(sys.modules.items()):
        if name.startswith("bnnbench.quantizers.") and hasattr(module, "in_parts"):
            monkeypatch.setattr(module, "in_parts", lambda weight: False)
    monkeypatch.setattr("bnnbench.callbacks.pulse.EVERY", 3600.0)


def trapped(cfg: DictConfig, *callbacks: L.Callback) -> Trapped:
    """A short run of ``cfg`` with all callbacks of a run, its steps trapped."""
    task, data = task_of(cfg), build.build_datamodule(cfg)
    trainer = build.build_trainer(cfg, Path(cfg.paths.output_dir), quiet=True)
    watch = Trapped()
    trainer.callbacks = [watch, *trainer.callbacks, *callbacks]  # pyright: ignore
    try:
        trainer.fit(task, data)
    finally:
        watch.leave()
    assert watch.steps == 6
    return watch


@pytest.mark.parametrize("choice", CHOICES)
def test_no_step_waits_for_a_device(compose: Compose, choice: str) -> None:
    assert trapped(compose(*overrides(choice), *STEPS)).trap.found == []


@pytest.mark.parametrize(
    "more",
    [
        "callbacks=diagnostics",
        "trainer.gradient_clip_val=1",
        "+trainer.accumulate_grad_batches=2",
        "dataset.erasing=0.5",
        "recipe.optimizer=sgd",
        "trainer.precision=bf16-mixed",
    ],
)
def test_nor_does_one_with_more(compose: Compose, more: str) -> None:
    assert trapped(compose(*overrides("quantizer=adabin"), *STEPS, more)).trap.found == []


class Curious(L.Callback):
    """Reads a value in every step."""

    def __init__(self, read: Callable[[torch.Tensor], object]) -> None:
        self.read = read

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, i) -> None:
        self.read(outputs["loss"].detach())


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (torch.Tensor.item, "_local_scalar_dense"),
        (float, "_local_scalar_dense"),
        (bool, "_local_scalar_dense"),
        (lambda loss: loss.tolist(), "tolist"),
        (lambda loss: loss.cpu(), "cpu"),
        (lambda loss: loss.numpy(), "numpy"),
        (lambda loss: loss[None][loss[None] > 0], "index"),
        (lambda loss: loss[None].nonzero(), "nonzero"),
        (lambda loss: torch.tensor(0.5) * loss, "lift_fresh"),
    ],
)
def test_whoever_waits_is_named(
    compose: Compose, read: Callable[[torch.Tensor], object], name: str
) -> None:
    found = trapped(compose(*overrides("quantizer=xnor"), *STEPS), Curious(read)).trap.found
    assert len(found) >= 6
    assert {line.partition(":")[0] for line in found} <= {name, "_local_scalar_dense"}
    assert name in {line.partition(":")[0] for line in found}
    assert all("test_synchronisation.py" in line for line in found)


def test_outside_nothing_is_trapped() -> None:
    trap = Trap()
    with trap:
        torch.zeros(()).item()
    torch.zeros(()).cpu()
    assert len(trap.found) == 1
