"""SiMaN: sign-to-magnitude binarization (Lin et al., TPAMI 2023, arXiv 2102.07981).

Code: lmbxmu/SiMaN. Each filter is standardised, ``v = (w - E w) / std(w)``; the larger half of its
magnitudes, ``floor(n / 2)`` of n, is +1, the rest -1 (the paper's {0, 1}, rescaled). The gradient
is straight-through to ``|v|``: ``sign(v) g``. After each step the weights are centred and their
magnitudes clipped to the layer's p-th and (100 - p)-th percentile, p falling from 15 to 0.
Activations ``sign(x - mean)`` with ApproxSign, mean and std of the sample in training and in
evaluation. One learned scale an output channel. std: unbiased, ``sqrt(var + 1e-5)``. Changed: the
code is computed, not stored; weights are clipped after a step, not in every forward, so not before
the first; equal magnitudes at the cut are all +1; sign(0) of activations = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Schedule, Side, per_filter, scaled_sign
from bnnbench.quantizers.standardise import unit_spread
from bnnbench.quantizers.surrogate import approx_sign, identity, sign, sign_ste


def percentiles(x: Tensor, percent: Tensor) -> tuple[Tensor, Tensor]:
    """The ``percent``-th and ``100 - percent``-th, interpolated; torch's end at 2^24 numbers."""
    ordered = x.flatten().sort().values
    last = len(ordered) - 1
    place = percent.double() / 100 * last
    below = place.floor().long()
    above = (below + 1).clamp(max=last)
    part = (place - below).to(x.dtype)
    # take, because an index of one number is read by the processor
    low = torch.lerp(ordered.take(below), ordered.take(above), part)
    high = torch.lerp(ordered.take(last - below), ordered.take(last - above), part)
    return low, high


class PercentSchedule(Schedule):
    """``first * (1 - progress)`` percent."""

    percent: Tensor

    def __init__(self, first: float) -> None:
        super().__init__()
        if not 0 <= first < 50:
            raise ValueError(f"quantizer.percent={first}: choose 0 to 50, 50 excluded")
        self.first = first
        self.register_buffer("percent", torch.tensor(float(first)))

    def set_progress(self, progress: float) -> None:
        """Clip less."""
        self.percent.fill_(self.first * (1 - progress))


class SiMaNWeight(Side):
    """+1 for the larger half of each filter's magnitudes."""

    def __init__(self, shape: Sequence[int], percent: float) -> None:
        super().__init__()
        self.schedule = PercentSchedule(percent)

    @staticmethod
    def _above(weight: Tensor) -> Tensor:
        """Magnitudes less the smallest that is +1."""
        magnitude = unit_spread(weight).abs()
        flat = magnitude.detach().flatten(1)
        larger = flat.topk(max(flat.shape[1] // 2, 1), dim=1, sorted=False).values
        return magnitude - larger.amin(dim=1).view(-1, *(1,) * (weight.dim() - 1))

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(self._above(weight), identity)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(self._above(x))

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Centre the latent weights and clip their magnitudes, in place."""
        weight.sub_(weight.mean(dim=per_filter(weight), keepdim=True))
        magnitude = weight.abs()
        low, high = percentiles(magnitude, self.schedule.percent)
        weight.copy_(sign(weight) * magnitude.clamp(low, high))


class SiMaNActivation(Side):
    """``sign(x - mean of the sample)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Signs of the centred ``x`` (N, ...), same shape."""
        return sign_ste(unit_spread(x), approx_sign)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(unit_spread(x))
