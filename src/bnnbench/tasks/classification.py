"""Image classification: a network, a loss, a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.callbacks.regularizer import Regularizer
from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.losses.context import LossTerm, StepContext
from bnnbench.tasks.recipe import Recipe
from bnnbench.tasks.roles import parameters_by_role

Batch = tuple[Tensor, Tensor]


class Classification(L.LightningModule):
    """Trains ``net`` with ``loss(logits, labels)`` plus named terms; knows nothing of any method.

    Works in anybody's Trainer: the regularizers and the callback that drives scheduled quantizers
    come with it. ``train/loss`` is the task's loss alone; each term is logged as ``train/<name>``.

    Args:
        net: images (N, C, H, W) to logits (N, classes).
        loss: logits and labels (N,) to a scalar.
        recipe: optimiser and schedule.
        num_classes: length of the logits.
        evaluates_on: what the validation loop sees, ``test`` or a held-out ``val`` part.
        terms: further loss terms by name: functions of the step, or regularizers.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        recipe: Recipe,
        num_classes: int,
        evaluates_on: str = "test",
        terms: Mapping[str, LossTerm | Regularizer] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.loss, self.recipe = net, loss, recipe
        self.terms: dict[str, LossTerm] = {}
        self.regularizers: list[Regularizer] = []
        self._layers: list[tuple[str, BinaryLayer]] = list(binary_layers(net))
        for name, term in (terms or {}).items():
            self._add(name, term)
        self.evaluates_on = evaluates_on
        self.train_loss, self.eval_loss = MeanMetric(), MeanMetric()
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.eval_acc = MulticlassAccuracy(num_classes, average="micro")

    def _add(self, name: str, term: LossTerm | Regularizer) -> None:
        if not isinstance(term, Regularizer):
            self.add_loss_term(name, term)
        elif term.weight:
            self.regularizers.append(term)
            term.attach(self)  # what makes no sense fails here, before any training

    def add_loss_term(self, name: str, term: LossTerm) -> None:
        """Add ``term(context)``, a weighted scalar, to the loss of every training step.

        A term that is a module is trained with the network, under the role ``prior``.
        """
        self.terms[name] = term
        if isinstance(term, nn.Module):
            self.add_module(f"term_{name}", term)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.net(x)

    def _metrics(self, stage: str) -> tuple[MeanMetric, MulticlassAccuracy]:
        if stage == "train":
            return self.train_loss, self.train_acc
        return self.eval_loss, self.eval_acc

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels = batch
        terms: Tensor | None = None
        if not self.training:
            # forward itself is never compiled: evaluation would pay for a compilation of its own
            logits = self.net.forward(images)
        elif self.terms:
            logits, features = self.net(images, return_features=True)
            terms = self._terms(StepContext(logits, features, labels, self._layers))
        else:
            logits = self.net(images)
        loss = self.loss(logits, labels)
        mean_loss, accuracy = self._metrics(stage)
        # update, not forward: forward would compute the metric of every batch as well
        mean_loss.update(loss.detach(), weight=len(labels))
        accuracy.update(logits.detach(), labels)
        return loss if terms is None else loss + terms

    def _terms(self, context: StepContext) -> Tensor:
        """The sum of all terms; the mean of each over the epoch is logged on its own."""
        values = {name: term(context) for name, term in self.terms.items()}
        for name, value in values.items():
            self.log(f"train/{name}", value.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return torch.stack(list(values.values())).sum()

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

    def configure_callbacks(self) -> list[L.Callback]:
        """The regularizers, and the callback without which scheduled quantizers stand still."""
        return [QuantizerProgress(), *self.regularizers]

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return self.recipe.build(parameters_by_role(self), steps)
