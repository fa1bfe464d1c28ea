"""RAD: regularizing activation distribution (Ding et al., CVPR 2019, arXiv 1904.02823).

Code: ruizhoud/DistributionLoss. A map before its sign, with the clipped straight-through gradient
behind it, is kept from three shapes, channel by channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-10  # of the variance: the root of 0 has no gradient


def distribution_loss(x: Tensor) -> Tensor:
    """The loss of one map (N, C, ...), a scalar: the mean over its channels.

    With ``m`` and ``s`` the mean and the population's standard deviation over all other axes:
    ``relu(2 - |m| - s)^2`` (too narrow: hardly a value beyond 1), ``relu(s - 4)^2`` (too wide: no
    gradient) and ``relu(m^2 - s^2)`` (on one side of 0: constant signs).
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(x, dim=axes, correction=0)
    std = (variance + EPS).sqrt()
    narrow = (2 - mean.abs() - std).relu().square()
    wide = (std - 4).relu().square()
    one_sided = (mean.square() - std.square()).relu()
    return (narrow + wide + one_sided).mean()
