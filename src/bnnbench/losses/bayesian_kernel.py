"""BONN's Bayesian kernel loss (Gu et al., ICCV 2019, arXiv 1908.06314), for any quantizer.

The functions give the bracket of Eq. 7; the factor lambda/2 of Eq. 9 belongs to the caller. Two
readings of the paper: the binary weights are constants in the quantization error (only then Eqs. 13
and 16 are the gradients of Eq. 9), and one mu and sigma a kernel serve both modes, as in its
Sec. 2.2. The loss is unbounded below as sigma falls: who moves sigma keeps a floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, binarized_layers, check_choice
from bnnbench.quantizers.base import overridden
from bnnbench.quantizers.surrogate import sign

MIXTURES = ("split", "exact")
ERRORS = ("modulated", "magnitude")
STATISTICS = ("closed_form", "sgd")


class KernelLoss(NamedTuple):
    """The parts of Eq. 7: ``total = error + nu * (prior + log_det)``."""

    error: Tensor
    prior: Tensor
    log_det: Tensor

    def total(self, nu: float) -> Tensor:
        """The bracket of Eq. 7."""
        return self.error + nu * (self.prior + self.log_det)


def kernel_loss(
    filters: Tensor,
    modulated: Tensor,
    quantized: Tensor,
    mu: Tensor,
    sigma: Tensor,
    mixture: str = "split",
) -> KernelLoss:
    """The parts of Eq. 7, summed over all kernels and weights.

    Args:
        filters: latent weights X, one kernel a row, (O, K).
        modulated: ``w o X``, (O, K).
        quantized: binary weights, (O, K); a constant: no gradient flows into them.
        mu, sigma: mode and standard deviation of each kernel, (O,).
        mixture: ``split`` gives each weight the mode of its own sign (Eq. 7); ``exact`` is the
            mixture of both modes (Eq. 6 per weight), a weight lower by
            ``2 log(1 + exp(-2|x| mu / sigma^2))``.
    """
    magnitude = filters * sign(filters.detach())  # |x|, and x = 0 belongs to the upper mode
    mu, sigma = mu[:, None], sigma[:, None]
    prior = ((magnitude - mu) / sigma).square().sum()
    if mixture == "exact":
        prior = prior - 2 * F.softplus(-2 * magnitude * mu / sigma.square()).sum()
    log_det = 2 * filters.shape[1] * sigma.log().sum()
    error = (quantized.detach() - modulated).square().sum()
    return KernelLoss(error, prior, log_det)


def bayesian_kernel_loss(
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    w_bar: Tensor | float,
    nu: float,
    mixture: str = "split",
) -> Tensor:
    """The Bayesian kernel loss of one layer (arXiv 1908.06314, Eq. 7), without lambda/2.

    Args:
        weight: latent weights X (O, I, kh, kw) or (O, I).
        mu, sigma: per kernel (O,); sigma positive.
        w_bar: modulation w, a scalar or (kh, kw); its mean scales the binary weights.
        nu: variance of the quantization error.
        mixture: see ``kernel_loss``.

    Returns:
        A scalar; the constant ``2 nu (K/2 log 2pi + K log 2)`` a kernel is dropped, as in Eq. 7.
    """
    if mixture not in MIXTURES:
        raise ValueError(f"mixture={mixture!r}: choose one of {MIXTURES}")
    mean = w_bar.mean() if isinstance(w_bar, Tensor) else w_bar
    parts = kernel_loss(
        weight.flatten(1),
        (w_bar * weight).flatten(1),
        (mean * sign(weight.detach())).flatten(1),
        mu,
        sigma,
        mixture,
    )
    return parts.total(nu)


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
        check_choice("error", error, ERRORS)
        check_choice("mixture", mixture, MIXTURES)
        check_choice("statistics", statistics, STATISTICS)
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
        if not self.weight or not self.has_stepped():
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
