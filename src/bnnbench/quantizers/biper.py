"""BiPer: a periodic function for binarization (Vargas et al., CVPR 2024, arXiv 2404.01278).

Code: edmav4/BiPer, built on ReCU and followed here; the paper was read as abstract. Weights
``sin(f w)``, real, in stage 1, and ``sign(sin(f w))``, a square wave, in stage 2, which starts from
stage 1's weights; both have the sine's gradient ``f cos(f w)``. Activations and the learned scale
of each output channel are ReCU's (``recu.py``, ``channel_scale.py``), its clamp is not used.
Changed: sign(0) = +1. The penalty ``tau * sum_l E[sin^2(f w)]`` of the CIFAR code is loss=biper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign_ste


class BiPerWeight(Side):
    """``sin(f w)`` in stage 1 (32 bits), its sign in stage 2."""

    def __init__(self, shape: Sequence[int], frequency: float, stage: int) -> None:
        super().__init__()
        if frequency <= 0:
            raise ValueError(f"quantizer.frequency={frequency} must be above 0")
        if stage not in (1, 2):
            raise ValueError(f"quantizer.stage={stage}: choose 1 (sine) or 2 (its sign)")
        self.frequency, self.stage = frequency, stage
        self.bits = 32 if stage == 1 else 1

    def forward(self, weight: Tensor) -> Tensor:
        """Weights in [-1, 1], in stage 2 -1 or +1; same shape as ``weight``."""
        wave = torch.sin(self.frequency * weight)
        return wave if self.stage == 1 else sign_ste(wave, identity)

    def decompose(self, x: Tensor) -> Decomposition:
        if self.stage == 1:
            return super().decompose(x)
        return scaled_sign(torch.sin(self.frequency * x))
