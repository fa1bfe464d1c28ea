"""Si-BNN: sparsity-inducing BNN (Wang et al., AAAI 2020; Wang, He, Cheng, TNNLS 2022).

Code: peiswang/SiBNN, the journal's form, followed here; the papers were read as abstracts. No arXiv
id. Activations ``1[y >= 0]`` in {0, 1} of ``y = s (x - theta)``, theta and s learned per channel,
with the gradient ``g * 1[-0.3 < y < 1]`` in y: theta is the threshold, 1/s and 0.3/s the window
above and below it. Weights ``E|w| * sign(w)`` per filter of n elements with
``dw = (1 - 1/n) g + sign(w)/n * sum(g sign(w))``, without the scale. Changed: latent weights are
clipped to [-1, 1] after each step (released: before each forward, in evaluation too); sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import (
    Decomposition,
    Side,
    mean_magnitude,
    per_filter,
    scaled_sign,
)
from bnnbench.quantizers.surrogate import clip, sign, sign_ste

LOW, HIGH = -0.3, 1.0  # gradients pass where y is between


def window(grad: Tensor, y: Tensor) -> Tensor:
    """``grad * 1[LOW < y < HIGH]``."""
    return clip(grad, (y - (HIGH + LOW) / 2).div_((HIGH - LOW) / 2))


def along_code(grad: Tensor, weight: Tensor) -> Tensor:
    """``(1 - 1/n) grad``, plus each filter's mean of ``grad * sign(w)`` along ``sign(w)``."""
    code = sign(weight)
    shared = (grad * code).mean(dim=per_filter(weight), keepdim=True)
    return grad * (1 - 1 / weight[0].numel()) + code * shared


class SiBNNWeight(Side):
    """``E|w| * sign(w)`` per filter; latent weights are clipped after the step."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(weight, along_code, scale=mean_magnitude(weight.detach()))

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, mean_magnitude(x))

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Clip the latent weight to [-1, 1] in place."""
        weight.clamp_(-1, 1)


class SiBNNActivation(Side):
    """{0, 1} with a learned threshold and window per channel, initially 0 and (-0.3, 1)."""

    symmetric = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.ones(channels))

    def _scaled(self, x: Tensor) -> Tensor:
        shape = (-1,) if x.dim() == 2 else (-1, 1, 1)  # (N, C) of a linear layer, or (N, C, H, W)
        return (x - self.threshold.view(shape)) * self.slope.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """0 or 1 for each element of ``x``, same shape."""
        return sign_ste(self._scaled(x), window, scale=x.new_full((), 0.5)) + 0.5

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(self._scaled(x), 0.5, 0.5)
