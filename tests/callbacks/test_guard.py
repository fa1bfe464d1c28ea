"""A run whose loss is no number stops within a few steps."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from bnnbench.callbacks.guard import FiniteLoss
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "enable_checkpointing": False, "max_epochs": 1}


class Diverging(Classification):
    """Its loss is no number from the third of thirty steps on."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if batch_idx >= 2 else loss


@pytest.mark.parametrize(("every", "steps"), [(1, 3), (5, 5), (50, 30)])
def test_the_loss_is_read_every_few_steps_and_at_the_end(every: int, steps: int) -> None:
    pairs = [(torch.randn(3), torch.tensor(n % 3)) for n in range(60)]
    loader: Any = DataLoader(pairs, batch_size=2)  # type: ignore[arg-type]
    recipe = Recipe("sgd", lr=1e-9, schedule="constant")
    task = Diverging(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    trainer = L.Trainer(**QUIET, callbacks=[FiniteLoss(every)])
    with pytest.raises(FloatingPointError, match="in epoch 0"):
        trainer.fit(task, loader)
    assert trainer.global_step == steps
