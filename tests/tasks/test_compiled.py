"""Every method's network is one graph, once: nothing breaks it and no later step makes another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch._dynamo.testing import CompileCounterWithBackend

from bnnbench.layers import binary_layers, set_progress

from ..small import CHOICES, begin, overrides, shrink, stub_trainer, task_of

Compose = Callable[..., DictConfig]


def compiled(net: Any) -> CompileCounterWithBackend:
    """Compile a network in place, as a run does, so that a break in its graph is an error."""
    torch._dynamo.reset()
    counted = CompileCounterWithBackend("eager")
    net.compile(backend=counted, fullgraph=True)
    return counted


@pytest.mark.parametrize("choice", CHOICES)
def test_a_training_step_is_one_graph(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    shrink(monkeypatch)
    task = task_of(compose(*overrides(choice)))
    counted, trainer = compiled(task.net), stub_trainer()
    begin(trainer, task, list(task.regularizers))
    batch = torch.randn(16, task.net.conv1.in_channels, 8, 8), torch.arange(16) % 10
    for epoch in range(3):
        set_progress(task.net, epoch, 3)
        for term in task.regularizers:
            term.on_train_batch_start(trainer, task, batch, epoch)
        task.training_step(batch, epoch).backward()
    assert counted.frame_count == 1
    assert all(layer.weight.grad is not None for _, layer in binary_layers(task.net))


def test_a_break_is_an_error() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return x

    net = Broken()
    compiled(net)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        net(torch.ones(3))
