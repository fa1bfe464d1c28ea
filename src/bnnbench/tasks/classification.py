"""Image classification: a network, a loss, a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from bnnbench.data.base import ClassificationData
from bnnbench.losses.class_weights import ClassWeighted
from bnnbench.losses.context import LossTerm
from bnnbench.losses.regularizer import Regularizer
from bnnbench.metrics.probabilities import BINS, ProbabilityScores
from bnnbench.metrics.unwatched import UnwatchedMean
from bnnbench.optim.recipe import Recipe
from bnnbench.records.schema import finite
from bnnbench.tasks.base import Task
from bnnbench.tasks.teacher import Teacher

Batch = tuple[Tensor, Tensor]  # images and labels; in training perhaps shares in the classes


class Classification(Task):
    """Trains ``net`` with ``loss(logits, labels)`` plus named terms, in anybody's Trainer.

    A test run, or a validation outside of a fit, also logs ``top5`` (of more than five classes),
    ``nll`` and ``brier`` (see ``ProbabilityScores``) and ``ece``, the expected calibration error:
    the mean difference of confidence and accuracy in 15 equal bins of the highest probability.

    Labels of mixed training images are shares (N, classes): ``train/acc`` counts the larger one.

    Args:
        net: images (N, C, H, W) to logits (N, classes).
        loss: logits and labels (N,) to a scalar, and shares (N, classes) where images are mixed.
        recipe: optimiser and schedule.
        num_classes: length of the logits.
        evaluates_on: what the validation loop sees, ``test`` or a held-out ``val`` part.
        terms: further loss terms by name: functions of the step, or regularizers.
        teacher: what terms may compare the network with.
        task_weight: factor of ``loss`` beside the terms.
        class_weights: how much the images of each class count in ``loss`` while training, one a
            class, or ``balanced``: all classes as much, whatever their numbers of images.
    """

    task, headline = "classification", "acc"
    metric_names = ("acc", "loss", "top5", "nll", "brier", "ece")

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
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        if class_weights is not None:
            loss = ClassWeighted(loss, num_classes, class_weights)
        super().__init__(net, loss, recipe, evaluates_on, terms, teacher)
        self.task_weight = task_weight
        self.train_loss, self.eval_loss = UnwatchedMean(), MeanMetric()
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.eval_acc = MulticlassAccuracy(num_classes, average="micro")
        self.scores = ProbabilityScores(num_classes)
        self.calibration = MulticlassCalibrationError(
            num_classes, n_bins=BINS, norm="l1", validate_args=False
        )

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if isinstance(self.loss, ClassWeighted) and self.loss.is_balanced:
            data = getattr(self.trainer, "datamodule", None)
            if not isinstance(data, ClassificationData):
                raise ValueError(
                    "class_weights=balanced counts the labels of a data module of bnnbench.data: "
                    "give a list, one weight a class"
                )
            self.loss.balance(data.class_counts())

    def _metrics(self, stage: str) -> tuple[MeanMetric, MulticlassAccuracy]:
        if stage == "train":
            return self.train_loss, self.train_acc
        return self.eval_loss, self.eval_acc

    def _losses(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch, which the stage's metrics have seen."""
        images, labels = batch
        logits, terms = self._run(images, labels)
        loss = self.loss(logits, labels)
        mean_loss, accuracy = self._metrics(stage)
        # update, not forward: forward would compute the metric of every batch as well
        mean_loss.update(loss.detach(), weight=len(labels))
        accuracy.update(logits.detach(), labels if labels.dim() == 1 else labels.argmax(1))
        total = loss if terms is None else self.task_weight * loss + terms
        return total, logits.detach()

    def _log_epoch(self, stage: str, prefix: str) -> None:
        for name, metric in zip(("loss", "acc"), self._metrics(stage), strict=True):
            self._log_whole(f"{prefix}/{name}", metric.compute())
            metric.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._losses(batch, "train")[0]

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", "train")

    def _evaluate(self, batch: Batch) -> None:
        _, logits = self._losses(batch, "eval")
        labels = batch[1]
        self._evaluated.update(len(labels))
        if self._final:
            self.scores.update(logits, labels)
            self.calibration.update(logits.float().softmax(1), labels)

    def _log_evaluation(self, prefix: str) -> None:
        self._log_epoch("eval", prefix)
        self._count_images()
        if self._final:
            scores = self.scores.compute()
            self.class_accuracy = finite(scores.pop("class_accuracy").tolist())
            bins = scores.pop("reliability").tolist()
            names = "images", "confidence", "accuracy"
            self.reliability = dict(zip(names, map(finite, bins), strict=True))
            self._log_defined(prefix, scores | {"ece": self.calibration.compute()})
            self.scores.reset()
            self.calibration.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation(self.evaluates_on)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Probabilities (B, classes) of a batch's images, with labels beside them or alone."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self._run(images, None)[0].softmax(1)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")
