"""A&B BNN (Ma et al., CVPR 2024, arXiv 2403.03739); code Ruichen0424/AB-BNN.

Weights ``gain E|v| sign(v)`` per filter, v the filter of scaled weight standardisation, ``(w - E w)
/ (std(w) + 1e-5) / sqrt(fan in)`` (std: biased), gain learned from 1; the sign is straight-through
(the code's clip at 1 never acts: v has norm 1), its scale a constant. Activations ``sign(x -
threshold)``, learned per channel, with the gradient of ``2 sigmoid(3x) - 1``. Quantized RPReLU:
slope ``2^round(L)``, L learned from -3, round straight-through. The network has no batch norms
(``norm_free.py``), and latent weights and gains get adaptive gradient clipping (NFNets, arXiv
2102.06171), filter by filter. Changed: stem, thresholds and nonlinearities are not clipped; Kaiming
in place of 1e-3 U(0, 1) at the start; sign(0) = +1. The equations are the code's; the paper itself
was not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, mean_magnitude, scaled_sign
from bnnbench.quantizers.reactnet import RSign
from bnnbench.quantizers.standardise import unit_norm
from bnnbench.quantizers.surrogate import identity, round_ste, sign_ste


def sigmoid_slope(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` times the slope of ``2 sigmoid(3x) - 1``."""
    s = torch.sigmoid(3 * x)
    return grad * (6 * s * (1 - s))


class ABWeight(Side):
    """``gain * E|v| * sign(v)`` per filter; ``clip_factor`` 0 turns the clipping off."""

    def __init__(self, shape: Sequence[int], clip_factor: float) -> None:
        super().__init__()
        if clip_factor < 0:
            raise ValueError(f"quantizer.clip_factor={clip_factor} must not be negative")
        self.clip_factor = clip_factor
        self.gain = nn.Parameter(torch.ones(shape[0], *(1,) * (len(shape) - 1)))

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        v = unit_norm(weight)
        return self.gain * sign_ste(v, identity, scale=mean_magnitude(v.detach()))

    def decompose(self, x: Tensor) -> Decomposition:
        v = unit_norm(x)
        return scaled_sign(v, self.gain * mean_magnitude(v))

    def after_backward(self, weight: Tensor) -> None:
        """Clip the gradient of each filter to ``clip_factor`` of the filter's norm, in place."""
        if self.clip_factor:
            from timm.utils.agc import adaptive_clip_grad  # timm takes seconds

            adaptive_clip_grad([weight, self.gain], self.clip_factor)


class ABActivation(RSign):
    """Sign with a learned threshold per channel and the sigmoid's slope."""

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x - threshold``, same shape as ``x`` (N, C) or (N, C, H, W)."""
        return sign_ste(self._shifted(x), sigmoid_slope)


class QuantizedRPReLU(nn.Module):
    """``prelu(x - shift_in) + shift_out`` per channel, the slope a power of two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.exponent = nn.Parameter(torch.full((channels,), -3.0))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W), same shape out."""
        slope = torch.exp2(round_ste(self.exponent))
        return F.prelu(x - self.shift_in.view(-1, 1, 1), slope) + self.shift_out.view(-1, 1, 1)
