"""PCNN: projection convolutional neural networks (Gu et al., AAAI 2019, arXiv 1811.12755).

Equation numbers are those of the group's book "Binary Neural Networks" (2023), chapter 3. Each of J
projections takes the kernels to {-a, +a} (Eqs. 3.29, 3.57: a is the layer's ``E|C|``), the weight
is their mean (Eq. 3.41). The backward uses every element of the J learned matrices W_j, one window
of a kernel (Eqs. 3.52, 3.55): ``dC = sum g_j * 1[|W_j C| <= 1] * W_j`` and ``dW_j`` the same with C
for W_j, ``g_j = g / J``. J = 1 projects with the mean of W, as the implementation note says. J > 1
projects with all of W_j (Eq. 3.43): with their means all J codes would be equal. Changed: the mean
leaves out Eq. 3.41's W_j^-1; sign(C) is taken before W_j's, so that C = 0 has W_j's sign; the paper
makes J maps of each code, a network J times as wide; here the layer keeps its width, and its J
codes differ by the signs of W_j alone. a is a constant in the backward; W's start is ours. The
projection loss (Eq. 3.42) is ``loss=pcnn``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import sign


def projected(weight: Tensor, modulation: Tensor) -> Tensor:
    """The J projections of ``weight`` (Eqs. 3.29, 3.57), without gradient, (J, O, I, kh, kw).

    Args:
        weight: latent kernels C, (O, I, kh, kw) or (O, I).
        modulation: W_1..J, (J, 1, 1, kh, kw) or (J, 1, 1).
    """
    weight, modulation = weight.detach(), modulation.detach()
    if len(modulation) == 1:
        modulation = modulation.mean(dim=tuple(range(modulation.dim())), keepdim=True)
    return weight.abs().mean() * sign(modulation) * sign(weight)


class _Projection(torch.autograd.Function):
    """The mean of the projections; its backward uses every element of W_j (Eqs. 3.52, 3.55)."""

    @staticmethod
    def forward(ctx, weight: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(weight, w)
        return projected(weight, w).mean(dim=0)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, w = ctx.saved_tensors
        through = grad / len(w) * (w * weight).abs().le(1)
        shared = [axis for axis in range(1, w.dim()) if w.shape[axis] == 1]
        return (through * w).sum(dim=0), (through * weight).sum(dim=shared, keepdim=True)


class PCNNWeight(Side):
    """The mean of J projections, J matrices W_j a layer.

    W starts at random in [0.5, 1.5]; with J > 1 in [-0.5, 1.5], so that the codes differ.
    """

    def __init__(self, shape: Sequence[int], projections: int) -> None:
        super().__init__()
        if projections < 1:
            raise ValueError(f"quantizer.projections={projections}: use 1 or more")
        self.bases = projections
        low = 0.5 if projections == 1 else -0.5
        window = (projections, 1, *shape[2:])  # four axes at most, as memory formats want it
        self.matrices = nn.Parameter(low + (1.5 - low) * torch.rand(window))

    @property
    def w(self) -> Tensor:
        """W_1..J, (J, 1, 1, kh, kw) or (J, 1, 1)."""
        return self.matrices.unsqueeze(1)

    def forward(self, weight: Tensor) -> Tensor:
        """Projected weights, same shape as ``weight``."""
        return _Projection.apply(weight, self.w)  # pyright: ignore[reportReturnType]

    def modulated(self, weight: Tensor) -> Tensor:
        """``W o C``, the mean over the projections; same shape as ``weight``."""
        return self.w.mean(dim=0) * weight

    def decompose(self, x: Tensor) -> Decomposition:
        unit = projected(torch.ones_like(x[:1, :1]), self.w).mean(dim=0)  # the signs of W alone
        return scaled_sign(x, x.detach().abs().mean() * unit)
