"""What a student learns from a teacher: soft targets, attention maps, hints; pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.quantizers.dorefa import DoReFaActivation

NORMALIZE = ("norm", "max")


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the images.

    arXiv 1503.02531, Sec. 2. At T = 1 its gradient, ``(softmax(student) - softmax(teacher)) / N``,
    is that of ReActNet's distributional loss (arXiv 2003.03488, Eq. 6), which lacks the teacher's
    entropy, a constant.

    Args:
        student, teacher: logits (N, classes).
        temperature: T, above 0.
    """
    ours = F.log_softmax(student / temperature, dim=1)
    theirs = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def attention_map(x: Tensor, normalize: str) -> Tensor:
    """``Q = sum_c x_c^2`` of each image, flattened and divided by its norm or maximum; (N, H W).

    Real-to-Binary, arXiv 2003.11535, Sec. 4.2; larq divides by the maximum.
    """
    q = x.square().sum(dim=1).flatten(1)
    size = q.norm(dim=1, keepdim=True) if normalize == "norm" else q.amax(dim=1, keepdim=True)
    return q / size.clamp(min=1e-12)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], normalize: str) -> Tensor:
    """``sum_j ||Q_s^j - Q_t^j||^2`` over pairs of maps (N, C, H, W), mean over the images.

    The numbers of channels may differ, sizes may not.
    """
    pairs = zip(student, teacher, strict=True)
    differences = [attention_map(s, normalize) - attention_map(t, normalize) for s, t in pairs]
    return torch.stack([d.square().sum(dim=1).mean() for d in differences]).sum()


def hint_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], bits: int) -> Tensor:
    """Mean of ``|q(F_s) - q(F_t)|`` over all elements, averaged over pairs of equal maps.

    Guided training, arXiv 1711.00205, Sec. 3.3, in the form of nowgood/QuantizeCNNModel. q clips to
    [0, 1] and rounds to ``bits``, straight-through (DoReFa); at 32 bits it is the identity.
    Gradients reach both sides.
    """
    q = DoReFaActivation(1, bits)
    pairs = zip(student, teacher, strict=True)
    return torch.stack([(q(s) - q(t)).abs().mean() for s, t in pairs]).mean()
