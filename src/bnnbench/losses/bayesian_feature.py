"""BONN's Bayesian feature loss (Gu et al., ICCV 2019, arXiv 1908.06314), for any quantizer.

The function gives the bracket of Eq. 8; the factor theta/2 of Eq. 9 belongs to the caller.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, check_choice, class_sums

FEATURES = ("penultimate", "logits")
CENTER_RULES = ("center_loss", "wen")
STATISTICS = ("closed_form", "sgd")


def bayesian_feature_loss(
    features: Tensor, targets: Tensor, centers: Tensor, sigma: Tensor
) -> Tensor:
    """The Bayesian feature loss (arXiv 1908.06314, Eq. 8), without theta/2, summed over samples.

    Args:
        features: (N, D).
        targets: class of each sample (N,), integers.
        centers, sigma: mean and standard deviation of each class and dimension (classes, D).
    """
    own = sigma[targets]
    squared = (features - centers[targets]).square()
    return (squared + squared / own.square() + 2 * own.log()).sum()


class BayesianFeature(Regularizer):
    """``weight / 2`` times the Bayesian feature loss (Eq. 8), averaged over the batch.

    Centres start at 0 and standard deviations at 1. Sums over samples are reduced over all
    processes, so that every rank keeps the same statistics.

    Args:
        weight: theta.
        features: ``penultimate`` (the classifier's input) or ``logits``.
        centers: rule of the class centres: ``center_loss`` moves them by ``center_lr`` times the
            class mean of ``c - f`` over the batch size, ``wen`` by ``center_lr`` times
            ``sum(c - f) / (1 + n)`` (center loss, Wen et al., ECCV 2016).
        center_lr: step of the centres.
        statistics: of sigma: ``closed_form`` follows the mean of ``(f - c)^2`` of each class with
            an exponential moving average; ``sgd`` takes gradient steps of Eq. 8.
        momentum: of the moving average, a step in which the class occurs.
        sigma_lr: over the optimizer's learning rate.
        sigma_floor: lower bound of sigma.
    """

    name, task = "feature", "classification"
    _state_keys = ("center", "sigma")

    def __init__(
        self,
        weight: float = 1e-3,
        features: str = "penultimate",
        centers: str = "center_loss",
        center_lr: float = 0.5,
        statistics: str = "closed_form",
        momentum: float = 0.9,
        sigma_lr: float = 0.1,
        sigma_floor: float = 0.1,
    ) -> None:
        check_choice("features", features, FEATURES)
        check_choice("centers", centers, CENTER_RULES)
        check_choice("statistics", statistics, STATISTICS)
        if weight < 0 or not 0 <= momentum < 1 or sigma_floor <= 0 or center_lr <= 0:
            raise ValueError(
                "loss: theta must not be negative, momentum must be in [0, 1), sigma_floor and "
                f"center_lr above 0; got {weight}, {momentum}, {sigma_floor}, {center_lr}"
            )
        self.weight, self.features = weight, features
        self.centers, self.center_lr = centers, center_lr
        self.statistics, self.momentum = statistics, momentum
        self.sigma_lr, self.sigma_floor = sigma_lr, sigma_floor
        self.center: Tensor | None = None
        self.sigma: Tensor | None = None
        self._batch: tuple[Tensor, Tensor] | None = None
        self._sums: Tensor | None = None  # of the batches whose gradients are accumulated

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.center is not None and self.sigma is not None:  # restored
            self.center = self.center.to(pl_module.device)
            self.sigma = self.sigma.to(pl_module.device)

    def _start(self, features: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        if self.center is None or self.sigma is None:
            self.center = features.new_zeros(classes, features.shape[1])
            self.sigma = torch.ones_like(self.center)
        return self.center, self.sigma

    def __call__(self, context: StepContext) -> Tensor:
        features = context.features if self.features == "penultimate" else context.logits
        features = features.float()
        self._batch = features.detach(), context.targets
        center, sigma = self._start(self._batch[0], context.logits.shape[1])
        total = bayesian_feature_loss(features, context.targets, center, sigma)
        return self.weight / (2 * len(features)) * total

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if not self.weight or self._batch is None:
            return
        features, targets = self._batch
        center, sigma = self.center, self.sigma
        assert center is not None
        assert sigma is not None
        difference = features - center[targets]
        parts = (torch.ones_like(difference), difference, difference.square())
        sums = class_sums(trainer, targets, len(center), *parts)
        self._sums = sums if self._sums is None else self._sums + sums
        if not self.has_stepped():
            return
        (count, first, second), self._sums = self._sums, None
        self._move_sigma(sigma, count, second, float(trainer.optimizers[0].param_groups[0]["lr"]))
        samples = count[:, 0].sum()
        if self.centers == "center_loss":
            center.add_(first / count.clamp(min=1) / samples, alpha=self.center_lr)
        else:
            center.add_(first / (1 + count), alpha=self.center_lr)

    def _move_sigma(self, sigma: Tensor, count: Tensor, second: Tensor, rate: float) -> None:
        seen = count > 0
        if self.statistics == "closed_form":
            followed = sigma.square().lerp(second / count.clamp(min=1), 1 - self.momentum).sqrt()
            moved = torch.where(seen, followed, sigma)
        else:
            gradient = (count / sigma - second / sigma**3) / count[:, 0].sum()
            moved = sigma - rate * self.sigma_lr * self.weight * gradient
        sigma.copy_(moved.clamp(min=self.sigma_floor))

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.weight and self.center is not None and self.sigma is not None:
            pl_module.log("feature/center_norm", self.center.norm(dim=1).mean())
            pl_module.log("feature/sigma", self.sigma.mean())
