"""BiPer's penalty: its closed form, its frequency, and where it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

import bnnbench
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.losses.periodic import Periodic
from bnnbench.optim.recipe import Recipe
from bnnbench.runs import build
from bnnbench.tasks.classification import Classification

Compose = Callable[..., DictConfig]


def task(term: Periodic, quantizer: str = "biper", **options: int) -> Classification:
    torch.manual_seed(0)
    spec = bnnbench.load_quantizer(quantizer, **options)
    net = bnnbench.build_backbone("wrn22", spec, image_size=8, widths=[4, 4, 6, 8]).double()
    named = {"periodic": term}
    return Classification(
        net, task_loss("classification"), Recipe("sgd", 0.01, schedule="cosine"), 10, terms=named
    )


@pytest.mark.parametrize(
    ("quantizer", "options"), [("biper", {"stage": 1}), ("biper", {}), ("xnor", {})]
)
def test_value_and_gradient_are_the_closed_form(quantizer: str, options: dict[str, int]) -> None:
    """``tau sum_l mean(sin^2(f w))``, with gradient ``tau f sin(2 f w) / n``."""
    module = task(term := Periodic(0.3, frequency=7.0), quantizer, **options)
    layers = [layer for _, layer in binary_layers(module)]
    value = term(None)  # pyright: ignore
    value.backward()
    expected = 0.0
    for layer in layers:
        w = layer.weight.detach()
        expected += sum(math.sin(7 * x) ** 2 for x in w.flatten().tolist()) / w.numel()
        gradient = 0.3 * 7 * torch.sin(14 * w) / w.numel()
        torch.testing.assert_close(layer.weight.grad, gradient)
    assert float(value.detach()) == pytest.approx(0.3 * expected, rel=1e-12)
    assert len(layers) > 15


def test_the_frequency_is_the_quantizers(compose: Compose) -> None:
    for overrides, frequency in (
        (["quantizer=biper", "quantizer.frequency=30"], 30.0),
        (["quantizer=xnor"], 20.0),
    ):
        (term,) = build.build_task(
            compose("backbone=resnet20", "loss=biper", *overrides)
        ).regularizers
        assert isinstance(term, Periodic)
        assert (term.frequency, term.weight) == (frequency, 0.037)


def test_full_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="loss=biper needs binarized layers"):
        task(Periodic(1.0, frequency=20.0), "fp32")


@pytest.mark.parametrize("arguments", [(-1.0, 20.0), (1.0, 0.0)])
def test_bad_options_are_named(arguments: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="tau must not be negative and frequency above 0"):
        Periodic(*arguments)
