"""What lines call a run."""

from __future__ import annotations

from bnnbench.records.store import Cell
from bnnbench.sweep.labels import labels


def cell(**overrides: str) -> Cell:
    return Cell({key.replace("__", "."): value for key, value in overrides.items()}, "run", "a")


def test_what_tells_runs_apart() -> None:
    cells = [cell(quantizer=q, backbone="resnet20", seed="0") for q in ("xnor", "bnn")]
    assert labels(cells, ["quantizer"]) == ["xnor", "bnn"]
    cells = [cell(quantizer="xnor", recipe__lr=lr, seed=s) for lr in ("0.1", "1") for s in "01"]
    assert labels(cells, ["recipe.lr"]) == ["lr=0.1 s0", "lr=0.1 s1", "lr=1 s0", "lr=1 s1"]
    assert labels([cell(quantizer="xnor", seed="0")], []) == [""]
    cells = [cell(quantizer="xnor", seed="0"), cell(quantizer="bnn", loss="kd", seed="0")]
    assert labels(cells, ["quantizer", "loss"]) == ["xnor", "bnn kd"]
