"""BONN's Bayesian regularizers (arXiv 1908.06314) as Lightning callbacks, for any quantizer.

Each registers its loss term with the module, owns what the term learns (mu, sigma, centres) outside
the optimizer, moves it after every step, and keeps it in its ``state_dict``. They come with the
LightningModule (``loss=bonn``) or stand in anybody's ``Trainer(callbacks=[...])``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.bayesian import MIXTURES, KernelLoss, bayesian_feature_loss, kernel_loss
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, binarized_layers, class_sums
from bnnbench.quantizers.base import overridden
from bnnbench.quantizers.surrogate import sign

ERRORS = ("modulated", "magnitude")
STATISTICS = ("closed_form", "sgd")
FEATURES = ("penultimate", "logits")
CENTER_RULES = ("center_loss", "wen")


class _Kernels:
    """The kernels of equally large filters of several layers, one a row: few large tensors."""

    def __init__(self, layers: Sequence[BinaryLayer]) -> None:
        self.layers = layers
        self.size = layers[0].weight[0].numel()

    def latent(self) -> Tensor:
        """Latent weights (R, K)."""
        return torch.cat([layer.weight.flatten(1) for layer in self.layers])

    def quantized(self) -> Tensor:
        """Quantized weights of this forward, without gradient (R, K)."""
        return torch.cat([layer.quantized.flatten(1) for layer in self.layers])

    def modulated(self, latent: Tensor) -> Tensor:
        """``w o X`` of quantizers that have a modulation, else X itself (R, K)."""
        sides = [layer.weight_quantizer for layer in self.layers]
        if not overridden(sides[0], "modulated"):
            return latent
        pairs: Any = zip(self.layers, sides, strict=True)
        return torch.cat([side.modulated(layer.weight).flatten(1) for layer, side in pairs])

    def magnitudes(self) -> Tensor:
        """``|X|`` without gradient (R, K)."""
        return self.latent().detach().abs()


class BayesianKernel(Regularizer):
    """``weight / 2`` times the Bayesian kernel loss (Eq. 7) of all binarized layers.

    Methods without a modulation vector have w = 1: their quantized weights are compared with the
    latent ones. ``mu`` and ``sigma`` start as mean and standard deviation of ``|X|`` per kernel.

    Args:
        weight: lambda.
        nu: variance of the quantization error. ``weight * nu / sigma^2`` is the prior's stiffness:
            its pull on a latent weight is that times the distance to the mode.
        error: the quantization error of Eq. 7. ``modulated``: the paper's, between the binary
            weights and ``w o X``; it pulls ``|X|`` to 1 and w upwards as long as ``|X|`` is below.
            ``magnitude``: between ``E|X| sign(X)`` and X, which has its minimum where X stands.
        mixture: ``split`` (Eq. 7) or ``exact`` (Eq. 6 per weight).
        statistics: ``closed_form`` follows the minimizers of Eq. 7 (mean of ``|X|``, variance
            around mu) with an exponential moving average; ``sgd`` takes the paper's steps, mean
            normalised (Eqs. 17, 18), with ``mu_lr`` and ``sigma_lr`` times the learning rate.
        momentum: of the moving average, a step.
        mu_lr, sigma_lr: over the optimizer's learning rate.
        sigma_floor: lower bound of sigma over its initial value, per kernel: without one the loss
            falls for ever and its pull grows beyond any stable step.
    """

    name = "kernel"
    _state_keys = ("mu", "sigma", "sigma_min")

    def __init__(
        self,
        weight: float = 1e-4,
        nu: float = 1e-4,
        error: str = "modulated",
        mixture: str = "split",
        statistics: str = "closed_form",
        momentum: float = 0.9,
        mu_lr: float = 1.0,
        sigma_lr: float = 0.1,
        sigma_floor: float = 0.25,
    ) -> None:
        _check_choice("error", error, ERRORS)
        _check_choice("mixture", mixture, MIXTURES)
        _check_choice("statistics", statistics, STATISTICS)
        if weight < 0 or nu < 0 or not 0 <= momentum < 1 or not 0 < sigma_floor <= 1:
            raise ValueError(
                "loss: lambda and nu must not be negative, momentum must be in [0, 1) and "
                f"sigma_floor in (0, 1]; got {weight}, {nu}, {momentum}, {sigma_floor}"
            )
        self.weight, self.nu, self.error, self.mixture = weight, nu, error, mixture
        self.statistics, self.momentum = statistics, momentum
        self.mu_lr, self.sigma_lr, self.sigma_floor = mu_lr, sigma_lr, sigma_floor
        self.groups: list[_Kernels] = []
        self.mu: list[Tensor] = []  # one (R,) tensor a group
        self.sigma: list[Tensor] = []
        self.sigma_min: list[Tensor] = []

    def attach(self, pl_module: Any) -> None:
        layers = binarized_layers(pl_module, "the Bayesian kernel loss", "loss.lambda=0")
        for layer in layers:
            layer.keeps_quantized = True
        sizes = dict.fromkeys(layer.weight[0].numel() for layer in layers)
        alike = [[x for x in layers if x.weight[0].numel() == size] for size in sizes]
        self.groups = [_Kernels(group) for group in alike]
        super().attach(pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.weight:
            return
        if not self.mu:
            self._estimate()
        for values in (self.mu, self.sigma, self.sigma_min):
            values[:] = [value.to(pl_module.device) for value in values]

    def _estimate(self) -> None:
        for group in self.groups:
            magnitudes = group.magnitudes()
            self.mu.append(magnitudes.mean(dim=1))
            sigma = magnitudes.std(dim=1, correction=0).clamp(min=torch.finfo(magnitudes.dtype).eps)
            self.sigma.append(sigma)
            self.sigma_min.append(self.sigma_floor * sigma)

    def __call__(self, context: StepContext) -> Tensor:
        totals = [parts.total(self.nu) for parts in self._parts()]
        return self.weight / 2 * torch.stack(totals).sum()

    def _parts(self) -> Iterator[KernelLoss]:
        for group, mu, sigma in zip(self.groups, self.mu, self.sigma, strict=True):
            latent = group.latent()
            if self.error == "modulated":
                pair = group.modulated(latent), group.quantized()
            else:
                still = latent.detach()
                pair = latent, still.abs().mean(dim=1, keepdim=True) * sign(still)
            yield kernel_loss(latent, *pair, mu, sigma, self.mixture)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if not self.weight:
            return
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        groups = zip(self.groups, self.mu, self.sigma, self.sigma_min, strict=True)
        for group, mu, sigma, sigma_min in groups:
            if self.statistics == "closed_form":
                self._follow(group.magnitudes(), mu, sigma)
            else:
                self._descend(group.magnitudes(), mu, sigma, rate)
            torch.maximum(sigma, sigma_min, out=sigma)

    def _follow(self, magnitudes: Tensor, mu: Tensor, sigma: Tensor) -> None:
        mu.lerp_(magnitudes.mean(dim=1), 1 - self.momentum)
        variance = (magnitudes - mu[:, None]).square().mean(dim=1)
        sigma.copy_(sigma.square().lerp(variance, 1 - self.momentum).sqrt())

    def _descend(self, magnitudes: Tensor, mu: Tensor, sigma: Tensor, rate: float) -> None:
        distance = magnitudes - mu[:, None]
        grad_mu = -distance.mean(dim=1) / sigma.square()
        grad_sigma = 1 / sigma - distance.square().mean(dim=1) / sigma**3
        mu.sub_(grad_mu, alpha=rate * self.mu_lr * self.weight * self.nu)
        sigma.sub_(grad_sigma, alpha=rate * self.sigma_lr * self.weight * self.nu)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.weight:
            return
        parts = [torch.stack(part) for part in zip(*self._parts(), strict=True)]
        for name, part in zip(KernelLoss._fields, parts, strict=True):
            scale = self.weight / 2 * (1.0 if name == "error" else self.nu)
            pl_module.log(f"kernel/{name}", scale * part.sum())
        mu, sigma = torch.cat(self.mu), torch.cat(self.sigma)
        start = torch.cat(self.sigma_min) / self.sigma_floor
        pl_module.log("kernel/mu", mu.mean())
        pl_module.log("kernel/sigma", sigma.mean())
        for name, deviation in (("stiffness", sigma), ("stiffness_start", start)):
            stiffness = self.weight * self.nu / deviation.square()
            pl_module.log(f"kernel/{name}", stiffness.mean())


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
        _check_choice("features", features, FEATURES)
        _check_choice("centers", centers, CENTER_RULES)
        _check_choice("statistics", statistics, STATISTICS)
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
        count, first, second = class_sums(trainer, targets, len(center), *parts)
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


def _check_choice(key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{key}={value!r}: choose one of {valid}")
