"""A training step on a device that is not the processor, without one.

Tensors have a shape and a device and no values: what mixes two devices fails, as on a GPU, and so
does what would wait for one, because there is no value to wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchmetrics import Metric

from bnnbench.callbacks.gradient_norm import GradientNorm
from bnnbench.callbacks.guard import FiniteLoss
from bnnbench.data.augmentation import Augmentation
from bnnbench.data.device_loader import DeviceLoader
from bnnbench.tasks.base import Task

from ..small import CHOICES, begin, overrides, shrink, stub_trainer, task_of

Compose = Callable[..., DictConfig]
DEVICE = torch.device("meta")  # CUDA's own backward asks for a driver


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, tensors have no values."""
    # Adam counts its steps on the processor, on a GPU as well.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_value", lambda step: 1.0)
    # Autocast knows no such device, and what is switched off and on has no say in where things are.
    monkeypatch.setattr(torch, "autocast", lambda *asked, **more: nullcontext())
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


def move(module: nn.Module) -> None:
    """Parameters, buffers and what metrics count, as tensors of ``DEVICE``."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    empty = like(tensor)
                    held[name] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
        if isinstance(part, Metric):
            for name, start in part._defaults.items():
                if isinstance(start, Tensor):
                    setattr(part, name, like(start))
            part._device = DEVICE
    module._device = DEVICE  # Lightning's


def train_a_step(task: Task, batch: tuple[Tensor, Tensor]) -> None:
    """What the trainer does in one, with all callbacks that do something in each."""
    parameters = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters)
    trainer, guard = stub_trainer(optimizer), FiniteLoss()
    callbacks = [guard, GradientNorm(), *task.configure_callbacks()]
    begin(trainer, task, callbacks)
    guard._look = False  # the first step is read, the others are not
    for callback in callbacks:
        callback.on_train_batch_start(trainer, task, batch, 0)
    loss = task.training_step(batch, 0)
    loss.backward()
    for callback in callbacks:
        callback.on_before_optimizer_step(trainer, task, optimizer)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    for callback in callbacks:
        callback.on_train_batch_end(trainer, task, {"loss": loss}, batch, 0)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_stays_on_its_device(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, choice: str, request: Any
) -> None:
    shrink(monkeypatch)
    task = task_of(compose(*overrides(choice)))
    request.getfixturevalue("away")
    move(task)
    images = torch.empty(16, *_shape(task), device=DEVICE)
    train_a_step(task, (images, torch.zeros(16, dtype=torch.int64, device=DEVICE)))
    assert all(p.grad is None or p.grad.device == DEVICE for p in task.parameters())
    assert any(p.grad is not None for p in task.net.parameters())


def _shape(task: Task) -> tuple[int, int, int]:
    return task.net.conv1.in_channels, 8, 8  # pyright: ignore


@pytest.mark.usefixtures("away")
def test_a_mistake_is_seen() -> None:
    x = torch.zeros(3, device=DEVICE)
    with pytest.raises(RuntimeError, match="two different devices"):
        _ = x + torch.zeros(3)
    with pytest.raises(DataDependentOutputException):
        x.sum().item()


@pytest.mark.usefixtures("away")
def test_batches_of_resident_images_stay_there() -> None:
    gpu = torch.device("cuda:0")  # whose forward nobody has to have
    augmentation = Augmentation((0.5,) * 3, (0.2,) * 3, pad=4, flip=True, erasing=0.5)
    images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8, device=gpu)
    labels = torch.zeros(64, dtype=torch.int64, device=gpu)
    batches = list(DeviceLoader(images, labels, augmentation, 32, train=True))
    assert [(x.device, y.device) for x, y in batches] == [(gpu, gpu)] * 2
