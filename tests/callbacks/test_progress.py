"""Scheduled state follows the run, latent weights are clipped after the step."""

from __future__ import annotations

from contextlib import nullcontext

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.quantizers.base import Side
from bnnbench.tasks.classification import Classification

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def fitted(
    quantizer: str, callbacks: list[L.Callback], reach: float = 1.0, **trainer: object
) -> Classification:
    net = bnnbench.build_backbone("resnet20", quantizer=quantizer, image_size=8)
    task = Classification(
        net,
        task_loss("classification"),
        Recipe("sgd", 50.0, schedule="cosine", estimator_reach=reach),
        10,
    )
    data = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(2)]
    L.Trainer(callbacks=callbacks, **QUIET, **trainer).fit(task, DataLoader(data, batch_size=None))
    return task


class Record(L.Callback):
    """Keeps the estimator's slope of each epoch."""

    def __init__(self) -> None:
        self.slopes: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module, batch, batch_idx) -> None:
        _, layer = next(binary_layers(pl_module))
        self.slopes.append(float(layer.weight_quantizer.schedule.t))


@pytest.mark.parametrize("reach", [1.0, 0.5])
@pytest.mark.parametrize("limit", [{"max_epochs": 4}, {"max_steps": 8, "max_epochs": -1}])
def test_slope_follows_the_progress_in_anybodys_trainer(limit: dict, reach: float) -> None:
    record = Record()
    fitted("irnet", [record], reach, **limit)
    expected = [0.1 * 100 ** (reach * epoch / 4) for epoch in range(4)]
    assert record.slopes[::2] == pytest.approx(expected)


def test_bnn_clips_latent_weights_after_the_step() -> None:
    task = fitted("bnn", [], max_epochs=1)
    largest = max(float(layer.weight.detach().abs().max()) for _, layer in binary_layers(task.net))
    assert largest == 1.0  # the huge learning rate throws them far outside


def test_half_precision_is_refused_where_there_are_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer(**QUIET)
    monkeypatch.setattr(type(trainer), "precision", "16-mixed")
    for quantizer, refused in (("bnn", True), ("birealnet", False)):
        net = bnnbench.build_backbone("resnet20", quantizer=quantizer, image_size=8)
        task = Classification(
            net, task_loss("classification"), Recipe("sgd", 0.1, schedule="cosine"), 10
        )
        with pytest.raises(ValueError, match="bf16-mixed") if refused else nullcontext():
            QuantizerProgress().on_fit_start(trainer, task)


def test_the_module_brings_the_callback() -> None:
    net = bnnbench.build_backbone("resnet20", image_size=8)
    task = Classification(
        net, task_loss("classification"), Recipe("sgd", 0.1, schedule="cosine"), 10
    )
    assert any(isinstance(callback, QuantizerProgress) for callback in task.configure_callbacks())


class Watched(Side):
    """A weight side that writes down when its hooks are called, and with which gradient."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.log.append("forward")
        return weight * 1.0

    def _note(self, hook: str, weight: torch.Tensor) -> None:
        assert not torch.is_grad_enabled()
        self.log.append(hook)
        self.latent, self.grad = weight.clone(), None if weight.grad is None else weight.grad.norm()

    def epoch_start(self, weight: torch.Tensor) -> None:
        self._note("epoch_start", weight)

    def after_backward(self, weight: torch.Tensor) -> None:
        self._note("after_backward", weight)
        assert self.grad > 1e-3  # clipped to 1e-9 afterwards

    def after_step(self, weight: torch.Tensor) -> None:
        before = self.latent
        self._note("after_step", weight)
        assert not torch.equal(before, weight)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_hooks_are_called_in_order_once_a_step(accumulate: int) -> None:
    log: list[str] = []
    net = bnnbench.build_backbone("resnet20", quantizer="birealnet", image_size=8)
    _, layer = next(binary_layers(net))
    layer.weight_quantizer = Watched(log)
    task = Classification(
        net, task_loss("classification"), Recipe("sgd", 1e6, schedule="cosine"), 10
    )
    data = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(2)]
    L.Trainer(
        max_epochs=2, gradient_clip_val=1e-9, accumulate_grad_batches=accumulate, **QUIET
    ).fit(task, DataLoader(data, batch_size=None))
    batches = ["forward"] * accumulate + ["after_backward", "after_step"]
    assert log == (["epoch_start"] + batches * (2 // accumulate)) * 2
