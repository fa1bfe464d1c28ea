"""The KL term of Bayes by Backprop (Blundell et al., ICML 2015, arXiv 1505.05424).

The posterior of a weight is N(m, s^2). Its entropy has a closed form; the prior's mixture has not
and is sampled, as all of the KL is in the paper (Eq. 2): the expectation is the same.
"""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, layers_of
from bnnbench.quantizers.bbb import BBBWeight

PRIORS = ("scale_mixture", "location_mixture")


def log_normal(x: Tensor, mean: float, sigma: float) -> Tensor:
    """Log density of N(mean, sigma^2) at ``x``, elementwise."""
    return -((x - mean) / sigma).square() / 2 - math.log(sigma) - math.log(2 * math.pi) / 2


def scale_mixture(x: Tensor, pi: float, sigma1: float, sigma2: float) -> Tensor:
    """Log density of ``pi N(0, sigma1^2) + (1 - pi) N(0, sigma2^2)`` (Eq. 7), elementwise."""
    if pi == 1:
        return log_normal(x, 0, sigma1)
    parts = math.log(pi) + log_normal(x, 0, sigma1), math.log(1 - pi) + log_normal(x, 0, sigma2)
    return torch.logaddexp(*parts)


def location_mixture(x: Tensor, mu: float, sigma: float) -> Tensor:
    """Log density of ``(N(-mu, sigma^2) + N(+mu, sigma^2)) / 2``, elementwise: BONN's prior."""
    return torch.logaddexp(log_normal(x, mu, sigma), log_normal(x, -mu, sigma)) - math.log(2)


def expected_log_posterior(sigma: Tensor) -> Tensor:
    """``E_q[log q]`` of independent N(m, sigma^2), minus the entropy; a scalar."""
    return -sigma.log().sum() - sigma.numel() * (math.log(2 * math.pi) + 1) / 2


def gaussian_kl(mean: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
    """``KL(N(mean, sigma^2) || N(0, prior_sigma^2))``, summed over all weights; a scalar."""
    ratio = (sigma / prior_sigma).square()
    return (((mean / prior_sigma).square() + ratio - 1 - ratio.log()) / 2).sum()


class KLDivergence(Regularizer):
    """``weight * KL(posterior || prior) / (M * batch size)``, M batches an epoch.

    The paper adds KL / M to a batch's summed log-likelihood (Eq. 8 with equal weights); the task
    loss is a mean, so both are divided by the batch size.

    Args:
        weight: 1 is the paper's bound; less is a tempered posterior.
        prior: ``scale_mixture`` (Eq. 7: pi, sigma1, sigma2) or ``location_mixture`` (modes at
            +-mu of deviation sigma1, the prior of BONN).
        pi: share of the wide component; 1 is a single Gaussian, whose KL is exact.
        sigma1, sigma2: standard deviations.
        mu: mode of the location mixture.
    """

    name = "kl"
    _state_keys = ()

    def __init__(
        self,
        weight: float,
        prior: str,
        pi: float,
        sigma1: float,
        sigma2: float,
        mu: float,
    ) -> None:
        if prior not in PRIORS:
            raise ValueError(f"loss.prior={prior!r}: choose one of {PRIORS}")
        if weight < 0 or not 0 < pi <= 1 or min(sigma1, sigma2) <= 0 or mu < 0:
            raise ValueError(
                "loss: lambda and mu must not be negative, pi in (0, 1], sigma1 and sigma2 above "
                f"0; got {weight}, {mu}, {pi}, {sigma1}, {sigma2}"
            )
        self.weight, self.prior, self.pi = weight, prior, pi
        self.sigma1, self.sigma2, self.mu = sigma1, sigma2, mu
        self.layers: list[BinaryLayer] = []
        self.batches: float | None = None

    def attach(self, pl_module: Any) -> None:
        self.layers = layers_of(pl_module, BBBWeight, "bbb", "bbb")
        super().attach(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batches = float(trainer.num_training_batches) * trainer.world_size
        if not math.isfinite(self.batches):
            raise ValueError(
                "the KL of Bayes by Backprop is spread over the batches of an epoch: the training "
                "loader must know its length, or set trainer.limit_train_batches"
            )

    def divergence(self) -> Tensor:
        """The KL of all layers in nats, from one sample where the prior is a mixture."""
        means = torch.cat([layer.weight.flatten() for layer in self.layers])
        sigmas = torch.cat([_sigma(layer).flatten() for layer in self.layers])
        if self.prior == "scale_mixture" and self.pi == 1:
            return gaussian_kl(means, sigmas, self.sigma1)
        sample = means + sigmas * torch.randn_like(sigmas)
        log_prior = self._log_prior(sample).sum()
        return expected_log_posterior(sigmas) - log_prior

    def _log_prior(self, sample: Tensor) -> Tensor:
        if self.prior == "location_mixture":
            return location_mixture(sample, self.mu, self.sigma1)
        return scale_mixture(sample, self.pi, self.sigma1, self.sigma2)

    def __call__(self, context: StepContext) -> Tensor:
        assert self.batches is not None, "the trainer's on_train_start has not been called"
        return self.weight / (self.batches * len(context.targets)) * self.divergence()


def _sigma(layer: BinaryLayer) -> Tensor:
    side = layer.weight_quantizer
    assert isinstance(side, BBBWeight)
    return side.sigma()
