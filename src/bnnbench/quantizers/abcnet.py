"""ABC-Net: accurate binary convolutions (Lin et al., NIPS 2017, arXiv 1711.11294).

Weights are a sum of M bases ``B_m = sign(w - E w + u_m std(w))``, statistics of the whole layer,
``u_m`` evenly from -1 to 1 (M = 1: 0), and scales ``alpha = argmin ||w - sum alpha_m B_m||^2``.
Each base is straight-through, alpha and the statistics are constants: ``dw = g * sum alpha_m``.
Activations are a sum of N bases ``beta_n A_n``, ``A_n = +1`` where ``clip(x + v_n, 0, 1) >= 1/2``
and else -1, gradient ``g * 1[0 < x + v_n < 1]``; beta and v are learned. Read in a
re-implementation (layog/Accurate-Binary-Convolution-Network) and citing texts, not in the paper,
which has no code. Ours: beta starts at 1/N, the N thresholds evenly from -1 to 1 (N = 1: 0); std is
the population's. The paper starts from a full-precision network: ``init_from=<checkpoint>``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side
from bnnbench.quantizers.surrogate import clip, sign, sign_ste, straight_through


def spaced(bases: int, name: str) -> Tensor:
    """``bases`` numbers evenly from -1 to 1, and 0 for one. Raises ValueError naming ``name``."""
    if not 1 <= bases <= 8:
        raise ValueError(f"quantizer.{name}={bases}: choose 1 to 8")
    return torch.linspace(-1, 1, bases) if bases > 1 else torch.zeros(1)


def half_clip(grad: Tensor, x: Tensor) -> Tensor:
    """``grad * 1[|x| < 1/2]``."""
    return clip(grad, 2 * x)


def _least_squares(gram: Tensor, moments: Tensor) -> Tensor:
    """The least solution of ``gram @ alpha = moments``, without a product that autocast rounds.

    A pseudo-inverse: bases are equal where no weight lies between their thresholds.
    """
    values, vectors = torch.linalg.eigh(gram)
    inverse = torch.where(values > 1e-6 * values[-1], 1 / values, 0.0)
    projected = (vectors * moments.unsqueeze(1)).sum(dim=0)
    return (vectors * (projected * inverse)).sum(dim=1)


class ABCNetWeight(Side):
    """The least-squares sum of shifted signs, scales of the layer."""

    u: Tensor

    def __init__(self, shape: Sequence[int], bases: int) -> None:
        super().__init__()
        self.bases = bases
        self.register_buffer("u", spaced(bases, "weight_bases"), persistent=False)

    def bases_and_scales(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """B (M, *shape) and alpha (M,), without gradient."""
        w = weight.detach()
        shifts = (self.u * w.std(correction=0)).view(-1, *(1,) * w.dim())
        codes = sign(w - w.mean() + shifts)
        means = codes.flatten(1).mean(dim=1)
        # no product: a base is nowhere below the one before, so E[B_m B_n] = 1 - |E B_m - E B_n|
        gram = 1 - (means - means.unsqueeze(1)).abs()
        moments = (codes * w).flatten(1).mean(dim=1)
        return codes, _least_squares(gram, moments)

    @staticmethod
    def _sum(codes: Tensor, alpha: Tensor) -> Tensor:
        return (codes * alpha.view(-1, *(1,) * (codes.dim() - 1))).sum(dim=0)

    def forward(self, weight: Tensor) -> Tensor:
        """Weights of at most 2^M values, same shape as ``weight``."""
        codes, alpha = self.bases_and_scales(weight)
        value = self._sum(codes, alpha)
        return straight_through(weight, value, alpha.sum())

    def decompose(self, x: Tensor) -> Decomposition:
        """The first base is the code, the others are in the scale."""
        codes, alpha = self.bases_and_scales(x)
        scale = self._sum(codes, alpha) * codes[0]
        return Decomposition(scale, codes[0], alpha.new_zeros(()))


class ABCNetActivation(Side):
    """``sum beta_n * sign(x + v_n - 1/2)``; beta and v are learned, one each a base and layer."""

    def __init__(self, channels: int, bases: int) -> None:
        super().__init__()
        self.bases = bases
        self.symmetric = bases == 1
        self.v = nn.Parameter(spaced(bases, "activation_bases") + 0.5)
        self.beta = nn.Parameter(torch.full((bases,), 1 / bases))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of all bases, same shape as ``x``."""
        bases = zip(self.beta, self.v, strict=True)
        terms = [beta * sign_ste(x + (v - 0.5), half_clip) for beta, v in bases]
        return sum(terms[1:], start=terms[0])

    def decompose(self, x: Tensor) -> Decomposition:
        """The first base is the code, the others are in the scale."""
        codes = [sign(x.detach() + (v - 0.5)) for v in self.v.detach()]
        total = sum(beta * code for beta, code in zip(self.beta.detach(), codes, strict=True))
        return Decomposition(total * codes[0], codes[0], torch.zeros_like(self.beta[0]).detach())
