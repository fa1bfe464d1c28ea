"""How many steps runs have, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bnnbench.records.position import Position, write_position
from bnnbench.runs.lengths import Cell, parts, with_twins

Compose = Callable[..., DictConfig]
BASE = ("quantizer=xnor", "backbone=resnet20", "dataset=cifar10")


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["trainer.max_epochs=2"], {32: 780}),  # 50,000 images are 390 batches of 128
        (["trainer.max_epochs=0"], {}),
        (["trainer.max_epochs=2", "dataset.batch_size=100"], {32: 1000}),
        (["trainer.max_epochs=2", "+trainer.limit_train_batches=3"], {32: 6}),
        (["trainer.max_epochs=2", "+trainer.limit_train_batches=0.1"], {32: 78}),
        (["trainer.max_epochs=2", "+trainer.max_steps=400"], {32: 400}),
        (["trainer.max_epochs=-1", "+trainer.max_steps=400"], {32: 400}),
        (["trainer.max_epochs=10", "recipe.resize=[[0.5,0.3]]"], {16: 3 * 390, 32: 7 * 390}),
    ],
)
def test_steps_of_a_run(
    compose: Compose, tmp_path: Path, words: list[str], steps: dict[int, int]
) -> None:
    found = parts(Cell(compose(*BASE, *words), 50000, tmp_path))
    assert {part.kind.side: part.steps for part in found} == steps


def test_stages_are_as_long_as_the_run(compose: Compose, tmp_path: Path) -> None:
    cfg = compose(*BASE, "recipe=two_step", "trainer.max_epochs=10")
    assert [part.steps for part in parts(Cell(cfg, 50000, tmp_path))] == [5 * 390, 5 * 390]


def test_a_cut_run_has_what_is_left(compose: Compose, tmp_path: Path) -> None:
    write_position(tmp_path, Position(epoch=7, max_epochs=10))
    (part,) = parts(Cell(compose(*BASE, "trainer.max_epochs=10"), 50000, tmp_path))
    assert part.steps == 3 * 390
    (part,) = parts(Cell(compose(*BASE, "trainer.max_epochs=10", "force=true"), 50000, tmp_path))
    assert part.steps == 10 * 390


def test_a_length_that_nobody_knows_is_no_guess(compose: Compose, tmp_path: Path) -> None:
    for words, images, why in (
        (["trainer.max_epochs=2"], None, "dataset=cifar10: it is unknown"),
        (["trainer.max_epochs=-1"], 50000, "without an end"),
    ):
        with pytest.raises(ValueError, match=why):
            parts(Cell(compose(*BASE, *words), images, tmp_path))


def test_a_twin_that_several_runs_start_from_counts_once(compose: Compose, tmp_path: Path) -> None:
    fast = ("backbone=resnet20", "dataset=cifar10", "recipe=fast", "backbone.nonlinearity=identity")
    cells = [
        Cell(compose("quantizer=xnor", *fast, f"recipe.pct_start={part}"), 50000, tmp_path / part)
        for part in ("0.2", "0.3")
    ]
    assert [c.cfg.quantizer.name for c in with_twins(cells)] == ["xnor", "xnor", "fp32"]
