"""FDA-BNN: frequency domain approximation (Xu et al., NeurIPS 2021, arXiv 2103.00841).

Code: BiBench's fda.py (the authors published evaluation alone). Weights ``E|w| sign(w)`` per
filter, the scale without gradient; activations ``sign(x)``. Both signs have the gradient of the
first n + 1 terms of a square wave's Fourier series (Sec. 2.2) within |x| < 1, omega = 0.1:
``4 omega / pi * sum_i cos((2 i + 1) omega x)``, the sum being ``sin(2 (n + 1) omega x) / (2
sin(omega x))``; n goes from 9 to 18. In training a noise adaptation module (Sec. 2.3) adds ``alpha
(fc2(relu(fc1(x))) + 0.1 sin(x))`` to each sign, alpha falling from 0.1 to 0 as a cosine. The linear
layers act on a filter's weights, or on a pixel's channels, and are 64 times narrower inside (4
times below 64). Changed: never noise in evaluation; n and alpha are those of an epoch's start, so
that the last epoch has n = 17; sign(0) = +1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Schedule, Side, mean_magnitude, scaled_sign
from bnnbench.quantizers.surrogate import clip, sign_ste

OMEGA = 0.1


def fourier(grad: Tensor, x: Tensor, terms: Tensor) -> Tensor:
    """The gradient of the first ``terms`` sines of a square wave's series, within [-1, 1]."""
    angle = x.clamp(-1, 1) * (OMEGA / math.pi)  # sinc takes parts of pi
    total = torch.sinc(2 * terms * angle) / torch.sinc(angle) * terms
    return clip(grad, x) * total * (4 * OMEGA / math.pi)


class NoiseAdaptation(Schedule):
    """The noise of either side, and its number of Fourier terms."""

    alpha: Tensor
    terms: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        inner = features // 64 or features // 4 or 1
        self.fc1 = nn.Parameter(torch.empty(inner, features, 1, 1))
        self.fc2 = nn.Parameter(torch.empty(features, inner, 1, 1))
        for weight in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as torch's linear layers
        self.register_buffer("alpha", torch.tensor(0.1))
        self.register_buffer("terms", torch.tensor(10.0))

    def set_progress(self, progress: float) -> None:
        """Less noise, more terms."""
        self.alpha.fill_(0.05 * (1 + math.cos(math.pi * progress)))
        self.terms.fill_(10 + int(9 * progress))

    def forward(self, x: Tensor) -> Tensor:
        """Noise for ``x`` (N, features, H, W), or (N, features); same shape."""
        pixels = x if x.dim() == 4 else x[:, :, None, None]
        hidden = F.conv2d(F.relu(F.conv2d(pixels, self.fc1)), self.fc2)
        return self.alpha * (hidden.view_as(x) + 0.1 * torch.sin(x))


class FDAWeight(Side):
    """``E|w| * sign(w)`` per filter."""

    training_only = ("noise",)

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.noise = NoiseAdaptation(math.prod(shape[1:]))

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, in training with noise; same shape as ``weight``."""
        value = sign_ste(weight, fourier, self.noise.terms)
        if self.training:
            value = value + self.noise(weight.flatten(1)).view_as(weight)
        return mean_magnitude(weight.detach()) * value

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, mean_magnitude(x))


class FDAActivation(Side):
    """``sign(x)``."""

    symmetric = True
    training_only = ("noise",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.noise = NoiseAdaptation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x``, in training with noise; same shape."""
        value = sign_ste(x, fourier, self.noise.terms)
        return value + self.noise(x) if self.training else value

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
