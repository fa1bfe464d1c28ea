"""The extragradient step: its closed form, a game that plain descent loses, a Lightning run."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.losses import task_loss
from bnnbench.optim.extragradient import Extragradient
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_quadratic(decay) -> None:
    """Of ``a w^2 / 2`` a step multiplies w by ``1 - s + s^2``, ``s = lr (a + decay)``."""
    a = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    w = nn.Parameter(torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64))
    opt = Extragradient([w], lr=0.2, weight_decay=decay)
    start, s = w.detach().clone(), 0.2 * (a + decay)

    def closure():
        opt.zero_grad()
        loss = (a * w.square()).sum() / 2
        loss.backward()
        return loss.detach()

    assert float(opt.step(closure)) == pytest.approx(float((a * start.square()).sum() / 2))
    torch.testing.assert_close(w.detach(), start * (1 - s + s * s))


def _distance(steps: int, make) -> float:
    """From the saddle of the game ``x y`` after ``steps`` of both players' gradients."""
    x, y = (nn.Parameter(torch.ones(1)) for _ in range(2))
    opt = make([x, y])

    def closure():
        x.grad, y.grad = y.detach().clone(), -x.detach().clone()
        return x * y

    for _ in range(steps):
        opt.step(closure)
    return float(x.square() + y.square()) ** 0.5


def test_reaches_the_saddle_that_plain_descent_leaves() -> None:
    assert _distance(200, lambda p: Extragradient(p, lr=0.3)) < 1e-3
    assert _distance(200, lambda p: torch.optim.SGD(p, lr=0.3)) > 10


def test_needs_a_closure() -> None:
    with pytest.raises(ValueError, match="pass a closure"):
        Extragradient([nn.Parameter(torch.ones(1))], lr=0.1).step()


def _task(schedule: str = "constant") -> Classification:
    torch.manual_seed(0)
    net = bnnbench.build_backbone("wrn22", "admm", in_channels=1, image_size=8, widths=[4] * 4)
    recipe = Recipe("extragradient", 0.1, schedule=schedule)
    return Classification(net, task_loss("classification"), recipe, 10)


def _batches(count: int) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 8, 1, 8, 8, generator=generator)
    labels = torch.randint(10, (count, 8), generator=generator)
    return DataLoader(list(zip(images, labels, strict=True)), batch_size=None)


def test_the_penalty_joins_both_gradients_in_a_trainer() -> None:
    trained, twin = _task(), _task()
    batches = _batches(1)
    L.Trainer(max_epochs=1, **QUIET).fit(trained, batches)
    images, labels = next(iter(batches))
    layers = [m for m in twin.net.modules() if hasattr(m, "weight_quantizer")]
    for layer in layers:
        layer.weight_quantizer.epoch_start(layer.weight)
    opt = Extragradient(twin.parameters(), lr=0.1)

    def closure():
        opt.zero_grad()
        loss = twin.loss(twin.net.train()(images), labels)
        for layer in layers:
            side = layer.weight_quantizer
            distance = layer.weight - side.g + side.dual
            loss = loss + side.rho / 2 * distance.square().sum()
        loss.backward()
        return loss.detach()

    opt.step(closure)
    for (name, a), b in zip(trained.net.named_parameters(), twin.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_onecycle_has_no_momentum_to_cycle() -> None:
    L.Trainer(max_epochs=1, **QUIET).fit(_task("onecycle"), _batches(3))


def test_accumulated_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulate_grad_batches"):
        L.Trainer(max_epochs=1, accumulate_grad_batches=2, **QUIET).fit(_task(), _batches(2))
