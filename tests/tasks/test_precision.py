"""A training step in bfloat16, as GPUs take it: finite, and that of 32 bits but for rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from bnnbench.tasks.base import Task

from ..small import CHOICES, begin, overrides, shrink, stub_trainer, task_of

Compose = Callable[..., DictConfig]


def step(task: Task, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The loss of a training step, and all gradients in one row."""
    task.zero_grad()
    torch.manual_seed(0)  # some methods draw
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = task.training_step(batch, 0)
    loss.backward()
    gradients = [p.grad.flatten().float() for p in task.parameters() if p.grad is not None]
    return loss.detach().float(), torch.cat(gradients)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_of_bfloat16(compose: Compose, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    shrink(monkeypatch)
    torch.manual_seed(0)
    task = task_of(compose(*overrides(choice)))
    trainer = stub_trainer()
    begin(trainer, task, list(task.regularizers))
    batch = torch.randn(64, task.net.conv1.in_channels, 8, 8), torch.arange(64) % 10
    for term in task.regularizers:
        term.on_train_batch_start(trainer, task, batch, 0)
    whole, exact = step(task, batch, torch.float32)
    half, rounded = step(task, batch, torch.bfloat16)
    assert half.isfinite()
    assert rounded.isfinite().all()
    closeness = torch.cosine_similarity(exact, rounded, dim=0)
    assert abs(half - whole) < 0.1 * whole
    assert closeness > 0.5
