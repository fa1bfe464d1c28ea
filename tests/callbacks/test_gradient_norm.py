"""The logged norm is that of the whole gradient before clipping, by a closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bnnbench.callbacks.gradient_norm import GradientNorm, total_norm
from bnnbench.callbacks.history import History
from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "max_epochs": 2}
IMAGES, CLASSES, RATE = 8, 3, 0.5


def data() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(IMAGES, 4, generator=draw), torch.arange(IMAGES) % CLASSES


def fit(folder: Path, batch: int = IMAGES, more: Any = (), **options: Any) -> list[float]:
    """The norms that a linear classifier, all zeros at first, is logged with."""
    net = torch.nn.Linear(4, CLASSES)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    pairs: Any = list(zip(*data(), strict=True))
    recipe = Recipe("sgd", lr=RATE, momentum=0, weight_decay=0, schedule="constant")
    task = Classification(net, task_loss("classification"), recipe, CLASSES)
    history = History()
    callbacks = [GradientNorm(), history, *more]
    trainer = L.Trainer(**QUIET, **options, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(task, DataLoader(pairs, batch_size=batch), DataLoader(pairs, batch_size=batch))
    return history.columns()["grad_norm"]  # type: ignore[return-value]


def expected(epochs: int, batches: int = 1, clip: float = math.inf) -> list[float]:
    """The same by numpy: the gradient of cross entropy is X^T (p - y) / n; an epoch's mean."""
    images, labels = (each.double().numpy() for each in data())
    x = np.c_[images, np.ones(IMAGES)]
    y = np.eye(CLASSES)[labels.astype(int)]
    weight = np.zeros((5, CLASSES))
    means = []
    for _ in range(epochs):
        norms = []
        for part in np.split(np.arange(IMAGES), batches):
            logits = x[part] @ weight
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            gradient = x[part].T @ (p - y[part]) / len(part)
            norm = np.sqrt((gradient**2).sum())
            norms.append(norm)
            weight -= RATE * gradient * min(1, clip / norm)
        means.append(float(np.mean(norms)))
    return means


@pytest.mark.parametrize("clip", [None, 0.05])
def test_it_is_the_norm_before_clipping(tmp_path: Path, clip: float | None) -> None:
    norms = fit(tmp_path, gradient_clip_val=clip)
    assert norms == pytest.approx(expected(2, clip=clip or math.inf), rel=1e-4)


def test_an_epoch_has_the_mean_of_its_steps(tmp_path: Path) -> None:
    assert fit(tmp_path, batch=4) == pytest.approx(expected(2, 2), rel=1e-4)


def test_accumulated_batches_are_one_gradient(tmp_path: Path) -> None:
    norms = fit(tmp_path, batch=4, accumulate_grad_batches=2)
    assert norms == pytest.approx(expected(2), rel=1e-4)


def test_half_precision_is_near(tmp_path: Path) -> None:
    norms = fit(tmp_path, precision="bf16-mixed")
    assert norms == pytest.approx(expected(2), rel=2e-2)


class Doubles(L.Callback):
    """Changes gradients where the hooks of quantizers do, which come after a trainer's own."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.grad *= 2


def test_what_callbacks_do_to_gradients_is_seen(tmp_path: Path) -> None:
    first = fit(tmp_path, more=[Doubles()])[0]
    assert first == pytest.approx(2 * expected(1)[0], rel=1e-4)


class Overflows(QuantizerProgress):
    """One step's gradients are no numbers, as in half precision, whose scaler leaves it out."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 0:
            pl_module.net.weight.grad[0, 0] = math.inf

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 1:
            torch.nn.init.zeros_(pl_module.net.weight)
            torch.nn.init.zeros_(pl_module.net.bias)


def test_steps_that_overflow_do_not_count(tmp_path: Path) -> None:
    first, second = fit(tmp_path, more=[Overflows()])
    assert first is None
    assert second == pytest.approx(expected(1)[0], rel=1e-4)


def test_the_norm_of_many_tensors_is_torchs() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5), torch.randn(2, 2, 2)]
    whole = torch.cat([each.flatten() for each in tensors])
    torch.testing.assert_close(total_norm(tensors), whole.norm())
