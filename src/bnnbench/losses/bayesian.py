"""The two Bayesian losses of BONN (Gu et al., ICCV 2019, arXiv 1908.06314) as pure functions.

Both are the brackets of Eqs. 7 and 8; the factors lambda/2 and theta/2 of Eq. 9 belong to the
caller. Two readings of the paper: the binary weights are constants in the quantization error (only
then Eqs. 13 and 16 are the gradients of Eq. 9), and one mu and sigma a kernel serve both modes, as
in its Sec. 2.2. The kernel loss is unbounded below as sigma falls: who moves sigma keeps a floor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from bnnbench.quantizers.surrogate import sign

MIXTURES = ("split", "exact")


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
