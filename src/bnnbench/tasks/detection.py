"""Object detection: an SSD, a loss, a recipe, PASCAL VOC's average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor
from torchmetrics import MeanMetric

from bnnbench.backbones.ssd import BinarySSD, HeadOutputs
from bnnbench.losses.context import LossTerm
from bnnbench.losses.multibox import MultiBox, MultiBoxParts, Targets
from bnnbench.losses.regularizer import Regularizer
from bnnbench.metrics.coco_ap import COCOAveragePrecision
from bnnbench.metrics.unwatched import UnwatchedMean
from bnnbench.metrics.voc_ap import VOCAveragePrecision
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.base import Task

Batch = tuple[Tensor, Targets]


class Detection(Task):
    """Trains ``net`` with ``loss(net, outputs, targets)`` plus named terms, in anybody's Trainer.

    ``test/map`` and ``test/ap/<class>`` are VOC's average precision at an IoU of 0.5; a test run
    also logs COCO's ``test/coco_map``, where objects marked ``difficult`` are crowds.
    All are undefined where no object has to be found.

    Args:
        net: images (N, 3, S, S) to class logits and offsets.
        loss: their loss in its parts, ``MultiBox()``.
        recipe: optimiser and schedule.
        classes: names of the labels from 1 on.
        evaluates_on: what the validation loop sees, ``test`` or a held-out ``val`` part.
        interpolation: rule of the average precision, ``11point`` (VOC 2007) or ``area``.
        terms: further loss terms by name: functions of the step, or regularizers.
    """

    task, headline = "detection", "map"
    net: BinarySSD

    def __init__(
        self,
        net: BinarySSD,
        loss: MultiBox,
        recipe: Recipe,
        classes: Sequence[str],
        evaluates_on: str = "test",
        interpolation: Literal["11point", "area"] = "11point",
        terms: Mapping[str, LossTerm | Regularizer] | None = None,
    ) -> None:
        super().__init__(net, loss, recipe, evaluates_on, terms)
        self.classes = tuple(map(str, classes))  # numbers are names as well
        self.metric_names = ("map", "loss", "coco_map", *(f"ap/{name}" for name in self.classes))
        self.train_loss, self.eval_loss = UnwatchedMean(), MeanMetric()
        self.average_precision = VOCAveragePrecision(0.5, interpolation)
        self.coco = COCOAveragePrecision()

    def _losses(self, batch: Batch) -> tuple[MultiBoxParts, Tensor | None, HeadOutputs]:
        images, targets = batch
        outputs, terms = self._run(images, targets)
        return self.loss(self.net, outputs, targets), terms, outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts, terms, _ = self._losses(batch)
        for name, part in parts._asdict().items():
            self._log_mean(f"train/{name}", part, len(batch[1]))
        loss = parts.classification + parts.localization
        self.train_loss.update(loss.detach(), weight=len(batch[1]))
        return loss if terms is None else loss + terms

    def on_train_epoch_end(self) -> None:
        self._log_loss("train", self.train_loss)

    def _evaluate(self, batch: Batch) -> list[dict[str, Tensor]]:
        parts, _, outputs = self._losses(batch)
        self.eval_loss.update(sum(parts), weight=len(batch[1]))
        self._evaluated.update(len(batch[1]))
        found = self.net.detect(outputs)
        self.average_precision.update(found, batch[1])
        if self._final:  # seconds an epoch on a large set
            self.coco.update(found, [_with_crowds(target) for target in batch[1]])
        return found

    def validation_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Tensor]]:
        """Returns boxes, scores and labels of each image, as ``net.detect`` does."""
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Tensor]]:
        """Returns boxes, scores and labels of each image, as ``net.detect`` does."""
        return self._evaluate(batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels of a batch's images, with objects beside them or alone."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.net.detect(self._run(images, None)[0])

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation(self.evaluates_on)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, prefix: str) -> None:
        self._log_loss(prefix, self.eval_loss)
        self._count_images()
        found = self.average_precision.compute()
        by_class = {f"ap/{self.classes[label - 1]}": ap for label, ap in found["ap"].items()}
        self._log_defined(prefix, {"map": found["map"], **by_class})
        self.average_precision.reset()
        if self._final:
            self._log_defined(prefix, {"coco_map": self.coco.compute()["map"]})
            self.coco.reset()

    def _log_loss(self, prefix: str, metric: MeanMetric) -> None:
        self._log_whole(f"{prefix}/loss", metric.compute())
        metric.reset()


def _with_crowds(target: dict[str, Tensor]) -> dict[str, Tensor]:
    difficult = target.get("difficult")
    return target if difficult is None else {**target, "iscrowd": difficult.int()}
