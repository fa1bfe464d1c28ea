"""Random numbers of an epoch do not depend on the epochs before it."""

from types import SimpleNamespace
from typing import Any

import torch

from bnnbench.callbacks.reseed import EpochSeed


def draw(seed: int, epoch: int, rank: int = 0) -> list[float]:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    EpochSeed(seed).on_train_epoch_start(trainer, torch.nn.Module())  # pyright: ignore
    return torch.rand(4).tolist()


def test_the_same_for_an_epoch_and_another_for_any_other() -> None:
    first = draw(0, 3)
    torch.rand(100)
    assert draw(0, 3) == first
    assert len({tuple(draw(*which)) for which in [(0, 3), (0, 4), (1, 3), (0, 3, 1)]}) == 4
