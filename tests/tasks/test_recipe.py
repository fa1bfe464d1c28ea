"""Optimisers and schedules against their closed forms."""

import math

import pytest
import torch
from torch import nn

from bnnbench.tasks.recipe import Recipe


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    built = recipe.build([nn.Parameter(torch.zeros(1))], steps)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_falls_from_lr_to_zero() -> None:
    expected = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert learning_rates(Recipe("sgd", 0.1), 20) == pytest.approx(expected)


def test_linear_with_warmup() -> None:
    rates = learning_rates(Recipe("adam", 1.0, schedule="linear", warmup=0.2), 10)
    assert rates == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_onecycle_peaks_at_three_tenths() -> None:
    rates = learning_rates(Recipe("adam", 1.0, schedule="onecycle"), 101)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates.index(max(rates)) in (29, 30)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers(name: str, kind: str) -> None:
    recipe = Recipe(name, 0.1, weight_decay=0.01, momentum=0.8)
    optimizer = recipe.build([nn.Parameter(torch.zeros(1))], 5)["optimizer"]
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["weight_decay"] == 0.01
    assert optimizer.defaults.get("momentum", 0.8) == 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "lion", "lr": 1}, "recipe.optimizer='lion'"),
        ({"optimizer": "sgd", "lr": 1, "schedule": "step"}, "recipe.schedule='step'"),
        ({"optimizer": "sgd", "lr": 0}, "lr=0"),
        ({"optimizer": "sgd", "lr": 1, "warmup": 1.0}, "warmup=1.0"),
    ],
)
def test_bad_recipes_say_what_to_choose(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)
