"""The KL term of Bayes by Backprop (Blundell et al., ICML 2015, arXiv 1505.05424)."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.callbacks.projection import layers_of
from bnnbench.layers import BinaryLayer
from bnnbench.losses import variational
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer
from bnnbench.quantizers.bbb import BBBWeight


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
        if prior not in variational.PRIORS:
            raise ValueError(f"loss.prior={prior!r}: choose one of {variational.PRIORS}")
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
            return variational.gaussian_kl(means, sigmas, self.sigma1)
        sample = means + sigmas * torch.randn_like(sigmas)
        log_prior = self._log_prior(sample).sum()
        return variational.expected_log_posterior(sigmas) - log_prior

    def _log_prior(self, sample: Tensor) -> Tensor:
        if self.prior == "location_mixture":
            return variational.location_mixture(sample, self.mu, self.sigma1)
        return variational.scale_mixture(sample, self.pi, self.sigma1, self.sigma2)

    def __call__(self, context: StepContext) -> Tensor:
        assert self.batches is not None, "the trainer's on_train_start has not been called"
        return self.weight / (self.batches * len(context.targets)) * self.divergence()


def _sigma(layer: BinaryLayer) -> Tensor:
    side = layer.weight_quantizer
    assert isinstance(side, BBBWeight)
    return side.sigma()
