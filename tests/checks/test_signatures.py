"""Arguments of callbacks against the types of their signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from lightning.pytorch import callbacks as pl
from omegaconf import DictConfig

from bnnbench.checks.signatures import check_arguments
from bnnbench.runs.preflight import check_settings, preflight

Compose = Callable[..., DictConfig]


class Parent:
    def __init__(self, patience: int, device: Any = None) -> None: ...


class Child(Parent):
    def __init__(self, mode: Literal["a", "b"] | None = None, *, share: float = 0.5, **rest: Any):
        super().__init__(**rest)


class Elsewhere:
    def __init__(self, folder: Path, parts: list[str], steps: Nowhere) -> None:  # noqa: F821 # pyright: ignore
        ...


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        (pl.EarlyStopping, "patience", "many", "give a whole number"),
        (pl.EarlyStopping, "patience", 3.5, "give a whole number"),
        (pl.EarlyStopping, "patience", True, "give a whole number"),
        (pl.EarlyStopping, "min_delta", "0.1x", "give a number"),
        (pl.EarlyStopping, "strict", "maybe", "give true or false"),
        (pl.EarlyStopping, "stopping_threshold", "high", "give a number or null"),
        (pl.EMAWeightAveraging, "decay", "high", "give a number"),
        (pl.LearningRateMonitor, "log_momentum", "sometimes", "give true or false"),
        (Child, "mode", "c", "give a or b or null"),
        (Child, "share", [1], "give a number"),
        (Child, "patience", "many", "give a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: type, name: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"callbacks\.x\.{name}=.*: {told}$"):
        check_arguments("callbacks.x", kind, {name: value})


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (pl.EarlyStopping, {"monitor": "test/acc", "patience": 3, "min_delta": 0, "mode": "max"}),
        (pl.EarlyStopping, {"stopping_threshold": None, "patience": "${seed}"}),
        (pl.Timer, {"duration": "00:00:10:00"}),
        (pl.Timer, {"duration": {"minutes": 10}}),
        (pl.ModelCheckpoint, {"dirpath": "x", "every_n_epochs": 2, "save_last": "link"}),
        (Child, {"mode": None, "share": 1, "patience": 1, "device": "cpu", "unknown": 3}),
        (Elsewhere, {"folder": "x", "steps": 3}),  # whose types cannot be read
    ],
)
def test_other_values_are_left_alone(kind: type, given: dict[str, Any]) -> None:
    check_arguments("callbacks.x", kind, given)


def test_a_run_and_a_sweep_tell_it_before_they_train(compose: Compose, short: list[str]) -> None:
    stop = (
        "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: test/acc, patience: many}"
    )
    cfg = compose(*short, f"+callbacks.x={stop}")
    for check in (check_settings, lambda cfg: preflight([cfg])):
        with pytest.raises(ValueError, match=r"callbacks\.x\.patience=many: give a whole number"):
            check(cfg)
    timer = compose(
        *short, "+callbacks.x={_target_: lightning.pytorch.callbacks.Timer, duration: 3}"
    )
    with pytest.raises(ValueError, match=r"callbacks\.x: "):
        preflight([timer])
