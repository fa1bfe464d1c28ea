"""What the config groups compute."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from bnnbench import resolvers


def test_a_held_out_part_is_what_best_is_chosen_on() -> None:
    resolvers.register()

    def headline(**dataset: object) -> str:
        return OmegaConf.create({"dataset": dataset, "a": "${headline:}"}).a

    assert headline(val_fraction=0.0) == "test/acc"
    assert headline(val_fraction=0.1) == "val/acc"
    assert headline(val_fraction=0.1, task="detection") == "val/map"


def test_a_value_may_follow_the_task() -> None:
    resolvers.register()
    for task, value in (("classification", 1e-2), ("detection", 1e-3)):
        cfg = OmegaConf.create({"dataset": {"task": task}, "a": "${by_task:1.0e-2,1.0e-3}"})
        assert cfg.a == value


def test_length_counts_a_list() -> None:
    resolvers.register()
    assert OmegaConf.create({"b": ["x", "y"], "a": "${length:${b}}"}).a == 2


@pytest.mark.parametrize(
    ("total", "fraction", "parts"),
    [(10, 0.5, (5, 5)), (3, 0.1, (1, 2)), (3, 0.9, (2, 1)), (0, 0.5, (0, 0))],
)
def test_parts_of_a_run_add_up(total: int, fraction: float, parts: tuple[int, int]) -> None:
    resolvers.register()
    keys = {"n": total, "f": fraction, "a": "${part:${n},${f}}", "b": "${rest:${n},${f}}"}
    cfg = OmegaConf.create(keys)
    assert (cfg.a, cfg.b) == parts


def test_one_epoch_has_no_parts() -> None:
    resolvers.register()
    with pytest.raises(InterpolationResolutionError, match="two steps take two epochs"):
        _ = OmegaConf.create({"a": "${part:1,0.5}"}).a
