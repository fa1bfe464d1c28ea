"""Image classification: a network, a loss, a recipe."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from bnnbench.callbacks.regularizer import Regularizer
from bnnbench.losses.context import LossTerm
from bnnbench.tasks.base import Task
from bnnbench.tasks.recipe import Recipe
from bnnbench.teacher import Teacher

Batch = tuple[Tensor, ...]  # images, labels, and what a teacher has said before


class Classification(Task):
    """Trains ``net`` with ``loss(logits, labels)`` plus named terms, in anybody's Trainer.

    Args:
        net: images (N, C, H, W) to logits (N, classes).
        loss: logits and labels (N,) to a scalar.
        recipe: optimiser and schedule.
        num_classes: length of the logits.
        evaluates_on: what the validation loop sees, ``test`` or a held-out ``val`` part.
        terms: further loss terms by name: functions of the step, or regularizers.
        teacher: what terms may compare the network with.
        task_weight: of ``loss`` beside the terms.
    """

    task, headline = "classification", "acc"

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        recipe: Recipe,
        num_classes: int,
        evaluates_on: str = "test",
        terms: Mapping[str, LossTerm | Regularizer] | None = None,
        teacher: Teacher | None = None,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__(net, loss, recipe, evaluates_on, terms, teacher)
        self.task_weight = task_weight
        self.train_loss, self.eval_loss = MeanMetric(), MeanMetric()
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.eval_acc = MulticlassAccuracy(num_classes, average="micro")

    def _metrics(self, stage: str) -> tuple[MeanMetric, MulticlassAccuracy]:
        if stage == "train":
            return self.train_loss, self.train_acc
        return self.eval_loss, self.eval_acc

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels, *taught = batch
        logits, terms = self._run(images, labels, *taught)
        loss = self.loss(logits, labels)
        mean_loss, accuracy = self._metrics(stage)
        # update, not forward: forward would compute the metric of every batch as well
        mean_loss.update(loss.detach(), weight=len(labels))
        accuracy.update(logits.detach(), labels)
        return loss if terms is None else self.task_weight * loss + terms

    def _log_epoch(self, stage: str, prefix: str) -> None:
        for name, metric in zip(("loss", "acc"), self._metrics(stage), strict=True):
            self.log(f"{prefix}/{name}", metric.compute())
            metric.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "eval")

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("eval", self.evaluates_on)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "eval")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("eval", "test")
