"""How far quantized kernels are from the latent ones: PCNN's projection loss, MCN's filter loss.

PCNN: Gu et al., AAAI 2019, arXiv 1811.12755; MCN: Wang et al., CVPR 2018. Equation numbers are
those of the group's book "Binary Neural Networks" (2023), chapter 3. Both are brackets without the
factors lambda/2 and theta/2, which belong to the caller.
"""

from __future__ import annotations

from torch import Tensor

from bnnbench.quantizers.pcnn import projected


def projection_loss(weight: Tensor, modulation: Tensor, shift: Tensor | None = None) -> Tensor:
    """``sum_ij ||C^_ij - W_j o (C_i + shift_ij)||^2`` of one layer (Eq. 3.42).

    The projected weights C^ (Eqs. 3.29, 3.57) are constants: only then Eqs. 3.52 and 3.56 are its
    gradients.

    Args:
        weight: latent kernels C, (O, I, kh, kw) or (O, I).
        modulation: W: (J, 1, 1, kh, kw) or (J, 1, 1), one matrix a projection; or one projection's,
            anything that broadcasts against ``weight``, as (kh, kw).
        shift: ``eta * delta`` of the discrete update (Eq. 3.37), shape of the weight, or with a
            leading J; a constant. None: 0, which leaves the first term of BONN's kernel loss.

    Returns:
        A scalar.
    """
    if modulation.dim() <= weight.dim():
        modulation = modulation.expand(
            (1,) * (weight.dim() + 1 - modulation.dim()) + modulation.shape
        )
    moved = weight if shift is None else weight + shift.detach()
    return (projected(weight, modulation) - modulation * moved).square().sum()


def filter_loss(weight: Tensor, reconstructed: Tensor) -> Tensor:
    """MCN's ``sum_i ||C_i - C^_i o M||^2`` of one layer (first part of Eq. 3.18).

    Args:
        weight: latent filters C.
        reconstructed: ``C^ o M``, same shape; gradients flow into M through it, and the binary
            filters C^ are constants.
    """
    return (weight - reconstructed).square().sum()


def compactness_loss(features: Tensor, targets: Tensor, centers: Tensor) -> Tensor:
    """MCN's ``sum_m ||f_m - f_mean||^2`` (second part of Eq. 3.18), summed over samples.

    Args:
        features: (N, D).
        targets: class of each sample (N,), integers.
        centers: mean feature of each class (classes, D).
    """
    return (features - centers[targets]).square().sum()
