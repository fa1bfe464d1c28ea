"""What the LightningModules of all tasks share: loss terms, their callbacks, the optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod
from torch import Tensor, nn
from torchmetrics import SumMetric

from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.losses.context import LossTerm, StepContext
from bnnbench.losses.distillation import TeacherTerm
from bnnbench.losses.regularizer import Regularizer
from bnnbench.optim.recipe import Recipe
from bnnbench.optim.roles import parameters_by_role
from bnnbench.records.signature import Signature, sign
from bnnbench.tasks import loading
from bnnbench.tasks.rebuilt import Described
from bnnbench.tasks.teacher import Teacher


class Task(L.LightningModule):
    """Trains ``net`` with a task's loss plus named terms; knows nothing of any method.

    Works in anybody's Trainer: the regularizers and the callback that drives scheduled quantizers
    come with it. ``train/loss`` is the task's loss alone; each term is logged as ``train/<name>``.

    Attributes:
        task: the data it is for.
        headline: the metric that stands for a run; logged after each evaluation, nan where it is
            undefined, because callbacks may monitor it.
        metric_names: what a final evaluation tells, without ``test/`` or ``val/``; one that is
            undefined is not logged.
        eval_images: images of the last evaluation, over all processes.
        signature: whose the checkpoints are; None in anybody's own training.
        class_accuracy: a classifier's, by class, in its last final evaluation; None for a class
            without images.
        reliability: a classifier's, ``images``, ``confidence`` and ``accuracy`` of each bin of
            confidence in its last final evaluation; None for a bin without images.
        class_names: of a loaded task, in the order of the labels.
        mean, std: of a loaded task, how its images were normalised: per channel, of pixels scaled
            to [0, 1].
    """

    task: str
    headline: str
    metric_names: tuple[str, ...]
    signature: Signature | None = None
    class_accuracy: list[float | None] | None = None
    reliability: dict[str, list[float | None]] | None = None
    class_names: Sequence[str] = ()
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    _untaught: Sequence[str] = ()  # loss terms that it was loaded without, for want of a teacher

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        recipe: Recipe,
        evaluates_on: str,
        terms: Mapping[str, LossTerm | Regularizer] | None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.net, self.loss, self.recipe, self.evaluates_on = net, loss, recipe, evaluates_on
        self.teacher = teacher
        self.terms: dict[str, LossTerm] = {}
        self.regularizers: list[Regularizer] = []
        self.eval_images = 0
        self._evaluated = SumMetric(nan_strategy="disable")  # number of images, so far
        self._layers: list[tuple[str, BinaryLayer]] = list(binary_layers(net))
        for name, term in (terms or {}).items():
            self._add(name, term)
        if teacher is not None:
            self._check_taught()
        if teacher is not None and teacher.joint:
            self.add_loss_term("teacher", lambda step: self.loss(step.teacher, step.targets))

    def _check_taught(self) -> None:
        if not any(isinstance(term, TeacherTerm) for term in self.regularizers):
            raise ValueError(
                "a teacher was chosen and no loss term asks it anything: choose loss=kd, "
                "distributional, attention or hints, or teacher=none"
            )

    def _add(self, name: str, term: LossTerm | Regularizer) -> None:
        if not isinstance(term, Regularizer):
            self.add_loss_term(name, term)
        elif term.weight:
            self.regularizers.append(term)
            term.attach(self)  # what makes no sense fails here, before any training

    def add_loss_term(self, name: str, term: LossTerm) -> None:
        """Add ``term(context)``, a weighted scalar, to the loss of every training step."""
        self.terms[name] = term

    def forward(self, x: Tensor) -> Any:
        """What the network says of images (N, C, H, W)."""
        return self.net(x)

    def _run(self, images: Tensor, targets: Any) -> tuple[Any, Tensor | None]:
        """The network's output, and the sum of all terms where there are any."""
        if not self.training:
            # forward itself is never compiled: evaluation would pay for a compilation of its own.
            # Floats of 32 bits whatever the training took: what is reported is what the trained
            # network says anywhere else, half a point is at stake with bfloat16
            with torch.autocast(images.device.type, enabled=False):
                return self.net.forward(images), None
        if not self.terms:
            return self.net(images), None
        outputs, features = self.net(images, return_features=True)
        taught = None if self.teacher is None else self.teacher(images)
        return outputs, self._terms(StepContext(outputs, features, targets, self._layers, taught))

    def _terms(self, context: StepContext) -> Tensor:
        """The sum of all terms; the mean of each over the epoch is logged on its own."""
        values = {name: term(context) for name, term in self.terms.items()}
        for name, value in values.items():
            self._log_mean(f"train/{name}", value, len(context.targets))
        return torch.stack(list(values.values())).sum()

    def _log_mean(self, name: str, value: Tensor, images: int) -> None:
        mean = {"on_step": False, "on_epoch": True, "sync_dist": True, "batch_size": images}
        self.log(name, value.detach(), **mean)

    def _log_whole(self, name: str, value: Tensor) -> None:
        """Log what is of all processes already; the largest of equal values is each of them."""
        self.log(name, value, reduce_fx="max", sync_dist=True)

    @property
    def _final(self) -> bool:
        """Whether this evaluation is the last one, and not one on the way."""
        return self._trainer is not None and self._trainer.state.fn != "fit"

    def _log_defined(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Log what is a finite number, and the headline in any case."""
        for name, value in values.items():
            if name == self.headline or bool(value.isfinite()):
                self._log_whole(f"{prefix}/{name}", value.float())

    def _count_images(self) -> None:
        self.eval_images = int(self._evaluated.compute())
        self._evaluated.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's last word on a checkpoint: everything else is in it by now."""
        sign(checkpoint, self.signature)

    @_restricted_classmethod  # on an instance, whose weights would stay, it is a TypeError
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        trust: Sequence[str] = (),
        **kwargs: Any,
    ) -> Self:
        """The trained task of a checkpoint, in eval mode, by what that one says of itself.

        It has the network, loss and loss terms, recipe, and as attributes class names and
        normalisation; no teacher, which only training needs. Of a checkpoint that says nothing,
        written in anybody's own training, the arguments are Lightning's ``hyper_parameters`` and
        ``kwargs``, as in any LightningModule.

        Args:
            checkpoint_path: a file.
            map_location: as of ``torch.load``; None: the CPU.
            hparams_file: as in Lightning; for a checkpoint that says nothing.
            strict: whether the weights have to be the network's, tensor by tensor; by default so.
            weights_only: False lets Lightning unpickle a checkpoint that says nothing, which runs
                code. What this suite writes is always read without.
            trust: packages whose classes the checkpoint may name beside this one.
            **kwargs: arguments of the class, in the place of the checkpoint's.

        Raises:
            BadCheckpoint: it cannot be read, rebuilt or loaded; the message says what to give.
            ValueError: it is of another task, or names code of packages that ``trust`` does not.
        """
        if not isinstance(checkpoint_path, str | PathLike):
            raise TypeError(f"load_from_checkpoint takes the path of a file, not {checkpoint_path}")
        path = Path(checkpoint_path)
        found = loading.read(path, weights_only is False, trust)
        if not isinstance(found, Described):
            if found is not None:
                loading.check_foreign(cls, found, path, hparams_file, kwargs)
            safe = weights_only is not False
            own = (path, map_location or "cpu", hparams_file, strict, safe)
            return super().load_from_checkpoint(*own, **kwargs).eval()
        loading.check_kind(cls.task, found, path)
        task = loading.rebuilt(cls, found, path, kwargs)
        loading.fill(task, found.content, path, task.strict_loading if strict is None else strict)
        known = found.signature
        task.class_names, task.mean, task.std = found.class_names, known.mean, known.std
        task._untaught = loading.untaught(found, kwargs)
        return task.to(loading.device_of(map_location)).eval()

    def on_fit_start(self) -> None:
        if self._untaught:
            raise ValueError(
                f"this task was loaded without its loss terms {', '.join(self._untaught)}, which "
                "ask a teacher: load it with teacher=<one of bnnbench.tasks.teacher>, or with "
                "terms={} to train without"
            )
        if not self.training:  # as load_from_checkpoint leaves it; Lightning keeps that mode
            self.train()
        if self.teacher is not None:
            self.teacher.net.to(self.device)  # a frozen one is no part of this module

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # else a run of steps ends without an evaluation

    def configure_callbacks(self) -> list[L.Callback]:
        """The regularizers, and the callback without which scheduled quantizers stand still."""
        return [QuantizerProgress(self.recipe.estimator_reach), *self.regularizers]

    def configure_optimizers(self) -> Any:
        if self.recipe.evaluates_twice and self.trainer.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches: a step of {self.recipe.optimizer} evaluates its "
                "batch twice and would miss those before; leave it at 1"
            )
        steps = int(self.trainer.estimated_stepping_batches)
        return self._for_this_batch().build(parameters_by_role(self), steps)

    def _for_this_batch(self) -> Recipe:
        """The recipe with the learning rate of the images that a step of this trainer sees."""
        if self.recipe.reference_batch is None:
            return self.recipe
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError(
                "recipe.reference_batch: the batch size is known of a data module of the suite "
                "alone; set recipe.lr, and reference_batch=null"
            )
        batches = self.trainer.world_size * self.trainer.accumulate_grad_batches
        recipe = self.recipe.scaled(images := data.spec.batch_size * batches)
        rank_zero_info(
            f"learning rate {recipe.lr:.3g} for {images} images a step, of {self.recipe.lr:.3g} "
            f"for {self.recipe.reference_batch}"
        )
        return recipe
