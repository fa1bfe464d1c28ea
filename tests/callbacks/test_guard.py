"""A run whose numbers are no longer finite stops, and keeps a checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from bnnbench.callbacks.guard import FiniteLoss
from bnnbench.config import build_backbone, options
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.records.signature import read_checkpoint
from bnnbench.runs.checkpoint_io import WholeCheckpoints
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "enable_checkpointing": False, "max_epochs": 1}
# Methods whose loss stays finite with a latent weight that is no number: its sign is +1.
HIDING = ("biper", "bnn", "bonn", "dsq", "ienet", "mcn", "r2b", "rad", "rbnn", "rbonn", "rebnn")
HIDING += ("recu", "siman", "xnorpp")
RECIPE = Recipe("adam", lr=1e-4, schedule="constant")


class Diverging(Classification):
    """Its loss is no number from the third of thirty steps on."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if batch_idx >= 2 else loss


@pytest.mark.parametrize(("every", "steps"), [(1, 3), (5, 5), (50, 30)])
def test_the_loss_is_read_every_few_steps_and_at_the_end(every: int, steps: int) -> None:
    pairs = [(torch.randn(3), torch.tensor(n % 3)) for n in range(60)]
    loader: Any = DataLoader(pairs, batch_size=2)  # type: ignore[arg-type]
    recipe = Recipe("sgd", lr=1e-9, schedule="constant")
    task = Diverging(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    trainer = L.Trainer(**QUIET, callbacks=[FiniteLoss(every)])
    with pytest.raises(FloatingPointError, match="in epoch 0"):
        trainer.fit(task, loader)
    assert trainer.global_step == steps


class Poisoned(Classification):
    """A step leaves something that is no number, and a finite loss."""

    poison: Callable[[Poisoned], None] | None = None
    at = 4

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.at and self.poison is not None:
            self.poison()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx)


def data(batches: int = 30) -> Any:
    images = [(torch.randn(3, 8, 8), torch.tensor(n % 3)) for n in range(4 * batches)]
    return DataLoader(images, batch_size=4)  # type: ignore[arg-type]


def network(method: str) -> torch.nn.Module:
    return build_backbone("resnet20", method, num_classes=3, image_size=8)


def fit(task: L.LightningModule, every: int = 5, **options: Any) -> L.Trainer:
    trainer = L.Trainer(**(QUIET | options), callbacks=[FiniteLoss(every)])
    trainer.fit(task, data())
    return trainer


def latent(self: Poisoned) -> None:
    with torch.no_grad():
        self.net.stages[1][0].conv1.weight[0, 0, 0, 0] = torch.nan


def running(self: Poisoned) -> None:
    self.net.bn1.running_var[0] = torch.inf


@pytest.mark.parametrize("method", options("quantizer"))
def test_one_latent_weight_that_is_no_number_is_named(method: str) -> None:
    """Its sign is +1, and the loss of some methods finite."""
    task = Poisoned(network(method), task_loss("classification"), RECIPE, 3)
    task.poison = lambda: latent(task)
    with pytest.raises(FloatingPointError) as told:
        fit(task)
    message = str(told.value)
    assert "no checkpoint is kept" in message
    if method in HIDING:
        assert "net.stages.1.0.conv1.weight" in message
    else:
        assert "is not finite in epoch 0, step 4" in message or "loss became nan" in message


def test_a_buffer_that_is_no_number_is_named() -> None:
    task = Poisoned(network("xnor"), task_loss("classification"), RECIPE, 3)
    task.poison = lambda: running(task)
    with pytest.raises(FloatingPointError, match=r"net\.bn1\.running_var is no longer finite"):
        fit(task)


class Clipped(Classification):
    """Its gradient is infinite in one step, and clipped: nothing of it shows in the weights."""

    def on_after_backward(self) -> None:
        if self.trainer.global_step == 7:
            gradient = self.net.stages[1][0].conv1.weight.grad
            assert gradient is not None
            gradient[0, 0, 0, 0] = torch.inf

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_().clamp_(-1, 1)


def test_an_infinite_gradient_that_clipping_hides_is_named() -> None:
    task = Clipped(network("xnor"), task_loss("classification"), RECIPE, 3)
    message = r"the gradient of net\.stages\.1\.0\.conv1\.weight is not finite in epoch 0, step 7 "
    with pytest.raises(FloatingPointError, match=message):
        fit(task, every=50)


def test_gradients_that_a_scaler_leaves_out_may_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Clipped(network("xnor"), task_loss("classification"), RECIPE, 3)
    monkeypatch.setattr(L.Trainer, "precision", property(lambda _: "16-mixed"))
    assert fit(task).global_step == 30


@pytest.mark.parametrize("method", options("quantizer"))
def test_nothing_of_a_fresh_network_is_infinite(method: str) -> None:
    state = network(method).state_dict()
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


def folder_of(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )


@pytest.mark.parametrize(
    ("step", "kept"), [(9, None), (10, None), (11, 0), (19, 0), (20, 0), (21, 1)]
)
def test_the_checkpoint_that_is_kept_is_one_that_training_went_on_from(
    tmp_path: Path, step: int, kept: int | None
) -> None:
    """Of ten steps an epoch; a loss that is no number in step ``step`` from 0."""

    class Bad(Classification):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * torch.nan if self.trainer.global_step == step else loss

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    task = Bad(net, task_loss("classification"), RECIPE, 3)
    options = QUIET | {"max_epochs": 4, "enable_checkpointing": True}
    callbacks = [FiniteLoss(50), folder_of(tmp_path)]
    trainer = L.Trainer(**options, callbacks=callbacks, plugins=[WholeCheckpoints()])
    with pytest.raises(FloatingPointError) as told:
        trainer.fit(task, data(batches=10))
    if kept is None:
        assert "no checkpoint is kept" in str(told.value)
        assert list(tmp_path.iterdir()) == []
        return
    assert f"the checkpoint of epoch {kept} is kept" in str(told.value)
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == kept
