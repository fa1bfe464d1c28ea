"""BiDet's two loss terms (Wang et al., CVPR 2020, arXiv 2003.03961) as pure functions.

Both follow the released training script: the mutual information of image and maps is bounded with a
standard normal prior, which leaves the square of the maps; the prior of sparse objects is the
entropy of the scores that survive suppression. Neither has its weight here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def information_bottleneck(maps: Sequence[Tensor]) -> Tensor:
    """Mean over the source maps of the mean square of each, a scalar."""
    return torch.stack([source.square().mean() for source in maps]).mean()


def sparse_object_prior(scores: Tensor, groups: Tensor, truths: Tensor) -> Tensor:
    """Entropy of surplus detections, a scalar.

    A group is a class in an image. Where it has more detections than truths, its entropy is
    ``-sum p log p`` over the truths, ``p`` being the scores over their sum, which is a constant;
    the loss is the mean over these groups, and 0 without any.

    Args:
        scores: of the detections, positive (D,).
        groups: group of each detection, int64 (D,).
        truths: number of objects of each group (G,); groups without any are left out.
    """
    zeros = scores.new_zeros(len(truths))
    counts = zeros.index_add(0, groups, torch.ones_like(scores))
    sums = zeros.index_add(0, groups, scores.detach())
    surplus = (truths > 0) & (counts > truths)
    p = scores / sums[groups]
    entropy = zeros.index_add(0, groups, -p * p.log()) / truths.clamp(min=1)
    return entropy[surplus].sum() / surplus.sum().clamp(min=1)
