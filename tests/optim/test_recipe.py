"""Optimisers and schedules against their closed forms."""

import math

import pytest
import torch
from torch import nn

from bnnbench.optim.recipe import Recipe


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    built = recipe.build({"other": [nn.Parameter(torch.zeros(1))]}, steps)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_falls_from_lr_to_zero() -> None:
    expected = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert learning_rates(Recipe("sgd", 0.1, schedule="cosine"), 20) == pytest.approx(expected)


def test_warmup_and_milestones_count_in_steps_as_well() -> None:
    """Whole numbers from 1 on; those behind the end are never reached."""
    steps = {"schedule": "step", "warmup": 2, "milestones": [5, 8, 1000]}
    fractions = {"schedule": "step", "warmup": 0.2, "milestones": [0.5, 0.8]}
    rates = learning_rates(Recipe("sgd", 1.0, **steps), 10)
    assert rates == pytest.approx(learning_rates(Recipe("sgd", 1.0, **fractions), 10))
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_a_warmup_as_long_as_the_run_is_told() -> None:
    with pytest.warns(UserWarning, match=r"has 4 steps and never reaches \[4, 30\]"):
        rates = learning_rates(Recipe("sgd", 1.0, schedule="step", warmup=4, milestones=[2, 30]), 4)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75])


def test_linear_with_warmup() -> None:
    rates = learning_rates(Recipe("adam", 1.0, schedule="linear", warmup=0.2), 10)
    assert rates == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_onecycle_peaks_at_three_tenths() -> None:
    rates = learning_rates(Recipe("adam", 1.0, schedule="onecycle"), 101)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates.index(max(rates)) in (29, 30)
    assert rates[-1] < 1e-4


def test_the_shape_of_onecycle_is_the_recipe_s() -> None:
    """From peak / 10, up over a tenth, to peak / (10 * 100)."""
    shape = {"pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0}
    rates = learning_rates(Recipe("adam", 0.5, schedule="onecycle", **shape), 101)
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(0.5, rel=1e-3)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[-1] == pytest.approx(0.0005)


@pytest.mark.parametrize("steps", [2, 5, 10, 49, 100])
def test_onecycle_of_a_rise_of_one_step_starts_at_its_peak(steps: int) -> None:
    """Torch's divides by zero there; it falls as half a cosine, to a negligible rate."""
    rates = learning_rates(Recipe("adam", 1.0, schedule="onecycle", pct_start=1 / steps), steps)
    fall = [(1 + math.cos(math.pi * step / (steps - 1))) / 2 for step in range(steps)]
    assert rates == pytest.approx(fall, abs=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pct_start": 1.0}, "pct_start must be between 0 and 1"),
        ({"pct_start": 0.0}, "pct_start must be between 0 and 1"),
        ({"div_factor": 0.5}, "div_factor and final_div_factor at least 1"),
        ({"final_div_factor": 0.0}, "div_factor and final_div_factor at least 1"),
        ({"pct_start": 0.2, "schedule": "cosine"}, "pct_start=0.2 is for recipe.schedule=onecycle"),
        ({"div_factor": 9.0, "schedule": "linear"}, "div_factor=9.0 is for recipe.schedule=onecy"),
        ({"estimator_reach": 0.0}, "estimator_reach=0.0 must be above 0"),
        ({"estimator_reach": 1.5}, "estimator_reach=1.5 must be above 0 and at most 1"),
    ],
)
def test_shapes_that_there_are_not(changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe("adam", 0.1, **changed)


def test_step_multiplies_by_gamma_at_each_milestone() -> None:
    """BONN on CIFAR: 0.2 at epochs 60, 120 and 180 of 200, here one step an epoch."""
    recipe = Recipe("sgd", 0.01, schedule="step", milestones=[0.3, 0.6, 0.9], gamma=0.2)
    rates = learning_rates(recipe, 200)
    expected = [0.01] * 60 + [0.002] * 60 + [0.0004] * 60 + [0.00008] * 20
    assert rates == pytest.approx(expected)


def test_roles_have_their_own_rate_and_decay() -> None:
    parameters = {role: [nn.Parameter(torch.zeros(1))] for role in ("latent", "scale", "norm")}
    groups = {"scale": {"lr": 0.1}, "norm": {"weight_decay": 0.0}, "other": {"lr": 9.0}}
    recipe = Recipe("sgd", 0.5, weight_decay=0.01, schedule="constant", groups=groups)
    built = recipe.build(parameters, 3)["optimizer"].param_groups
    found = [(group["params"], group["lr"], group["weight_decay"]) for group in built]
    assert found[0] == (parameters["latent"], 0.5, 0.01)
    assert found[1] == (parameters["scale"], 0.05, 0.01)
    assert found[2] == (parameters["norm"], 0.5, 0.0)


def test_onecycle_keeps_the_ratio_of_the_roles() -> None:
    parameters = {role: [nn.Parameter(torch.zeros(1))] for role in ("latent", "scale")}
    recipe = Recipe("adam", 1.0, schedule="onecycle", groups={"scale": {"lr": 0.1}})
    built = recipe.build(parameters, 10)
    for _ in range(9):
        rates = [group["lr"] for group in built["optimizer"].param_groups]
        assert rates[1] == pytest.approx(0.1 * rates[0])
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers(name: str, kind: str) -> None:
    recipe = Recipe(name, 0.1, weight_decay=0.01, momentum=0.8)
    optimizer = recipe.build({"other": [nn.Parameter(torch.zeros(1))]}, 5)["optimizer"]
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["weight_decay"] == 0.01
    assert optimizer.defaults.get("momentum", 0.8) == 0.8


def test_bayesbinn_learns_latent_weights_and_leaves_the_rest_to_adam() -> None:
    parameters = {role: [nn.Parameter(torch.ones(1))] for role in ("latent", "norm")}
    groups = {"latent": {"effective_size": 50.0}}
    recipe = Recipe("bayesbinn", 0.1, schedule="constant", groups=groups)
    optimizer = recipe.build(parameters, 5)["optimizer"]
    for own in parameters.values():
        own[0].grad = torch.full((1,), 0.2)
    optimizer.step()
    assert float(parameters["latent"][0].detach()) == pytest.approx(0.9 - 0.1 * 50 * 0.2)
    assert float(parameters["norm"][0].detach()) == pytest.approx(1 - 0.1)  # Adam's first step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "bayesbinn", "lr": 1}, "bayesbinn needs it for latent"),
        (
            {"optimizer": "adam", "lr": 1, "groups": {"latent": {"effective_size": 1}}},
            "nothing else has any",
        ),
        ({"optimizer": "lion", "lr": 1}, "recipe.optimizer='lion'"),
        ({"optimizer": "sgd", "lr": 1, "schedule": "poly"}, "recipe.schedule='poly'"),
        ({"optimizer": "sgd", "lr": 1, "schedule": "step"}, "step needs milestones"),
        ({"optimizer": "sgd", "lr": 1, "milestones": [0.5]}, "only step has any"),
        (
            {"optimizer": "sgd", "lr": 1, "schedule": "step", "milestones": [0.5, 120]},
            "fractions of the run",
        ),
        (
            {"optimizer": "sgd", "lr": 1, "schedule": "step", "milestones": [120, 60]},
            "must rise",
        ),
        ({"optimizer": "sgd", "lr": 1, "warmup": 1.5}, "warmup=1.5"),
        ({"optimizer": "sgd", "lr": 1, "groups": {"sign": {"lr": 1}}}, "recipe.groups.sign"),
        ({"optimizer": "sgd", "lr": 1, "groups": {"norm": {"decay": 0}}}, "'decay'"),
        ({"optimizer": "sgd", "lr": 0}, "lr=0"),
        ({"optimizer": "sgd", "lr": 1, "warmup": 1.0}, "warmup=1.0"),
    ],
)
def test_bad_recipes_say_what_to_choose(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("sgd", 0.4), ("adam", 0.2), ("adamw", 0.2), ("extragradient", 0.4)]
)
def test_four_times_the_images_have_the_rate_of_their_rule(optimizer: str, rate: float) -> None:
    """Linear for sgd, the square root for adam; groups keep their share of it."""
    stated = Recipe(optimizer, 0.1, reference_batch=256, groups={"scale": {"lr": 0.5}})
    assert stated.scaled(1024).lr == pytest.approx(rate)
    assert stated.scaled(256).lr == pytest.approx(0.1)
    parameters = {"scale": [nn.Parameter(torch.zeros(1))]}
    assert stated.scaled(1024).parameter_groups(parameters)[0]["lr"] == pytest.approx(rate / 2)
    assert Recipe(optimizer, 0.1).scaled(1024).lr == 0.1


def test_an_optimiser_without_a_rule_is_not_scaled() -> None:
    groups = {"latent": {"effective_size": 10.0}}
    with pytest.raises(ValueError, match=r"reference_batch=256: no rule .*bayesbinn; set recipe"):
        Recipe("bayesbinn", 0.1, reference_batch=256, groups=groups)
