"""The learning rate of a recipe that states for how many images a step it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification


@pytest.mark.parametrize(("ranks", "batches", "rate"), [(1, 1, 0.05), (4, 1, 0.2), (2, 4, 0.4)])
def test_ranks_and_accumulated_batches_count(ranks: int, batches: int, rate: float) -> None:
    recipe = Recipe("sgd", 0.1, schedule="constant", reference_batch=64)
    task = Classification(nn.Linear(4, 2), nn.CrossEntropyLoss(), recipe, 2, "test")
    trainer: Any = SimpleNamespace(
        world_size=ranks, accumulate_grad_batches=batches, estimated_stepping_batches=10,
        datamodule=SimpleNamespace(spec=SimpleNamespace(batch_size=32)),
    )  # fmt: skip
    task._trainer = trainer
    built = task.configure_optimizers()
    assert built["optimizer"].param_groups[0]["lr"] == pytest.approx(rate)


def test_the_batch_of_somebody_s_own_loader_is_not_known() -> None:
    recipe = Recipe("sgd", 0.1, reference_batch=64)
    task = Classification(nn.Linear(4, 2), nn.CrossEntropyLoss(), recipe, 2, "test")
    trainer: Any = SimpleNamespace(world_size=1, accumulate_grad_batches=1, datamodule=None)
    task._trainer = SimpleNamespace(**vars(trainer), estimated_stepping_batches=10)  # type: ignore
    with pytest.raises(ValueError, match="reference_batch: the batch size is known of a data mod"):
        task.configure_optimizers()
