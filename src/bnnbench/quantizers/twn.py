"""TWN: ternary weight networks (Li et al., 2016, arXiv 1605.04711); code fengfu-chris/caffe-twns.

Weights ``alpha * t``, t = +1 above Delta, -1 below -Delta, 0 between, with ``Delta = 0.7 E|w|`` and
``alpha`` the mean of ``|w|`` over the non-zero t, both of the whole layer; straight-through: the
gradient of ``alpha * t`` is that of w, without alpha. Activations are real. Equations as in the
authors' Caffe code, the paper was not read beyond its abstract; their later PyTorch code
(Thinklab-SJTU/twns) takes Delta and alpha per filter. Changed: first and last layer stay in full
precision unless ``first=binary last=binary`` (the authors ternarize both).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bnnbench.quantizers.base import Side
from bnnbench.quantizers.surrogate import identity, sign_ste


class TWNWeight(Side):
    """``alpha * {-1, 0, +1}``, one threshold and one alpha a layer."""

    bits = 2

    def __init__(self, shape: Sequence[int], threshold: float) -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"quantizer.threshold={threshold}: use 0 to below 1, times E|w|")
        self.threshold = threshold

    def forward(self, weight: Tensor) -> Tensor:
        """Ternary weights, same shape as ``weight``."""
        magnitude = weight.detach().abs()
        kept = (magnitude > self.threshold * magnitude.mean()).to(weight.dtype)
        alpha = (magnitude * kept).sum() / kept.sum().clamp(min=1)  # an all-zero layer keeps none
        return sign_ste(weight, identity, scale=alpha * kept)
