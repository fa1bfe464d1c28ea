"""SLB: searching for low-bit weights (Yang et al., NeurIPS 2020, arXiv 2009.08695).

From SLB in MindSpore Golden Stick, by the authors' laboratory, and the README of zhaohui-yang/
Binary-Neural-Networks, whose code is empty. Each weight has a logit for -1 and one for +1: in
training it is the expectation over the softmax of T times the logits, in evaluation the likelier
value. The inverse temperature T is 1, grows exponentially with the training progress from ``start``
to ``end``, and from there on training has the values of evaluation, without gradient to w. No
scale. Changed: both logits are one latent weight, ``w = (a_+ - a_-) / sqrt(2)``, value ``tanh(T w /
sqrt(2))``: SGD moves it as it moves the logits, momentum and weight decay included (Adam by
sqrt(2) less). Missing: the paper's state batch norm, in the codes a calibration of batch norm on
hard weights after each epoch; batch norm fits them in the hard end of training, and evaluations
before it have soft statistics. Activations: ``sign(x)``, clipped straight-through; the authors'
(PACT in the README) could not be read. sign(0) = +1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Schedule, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign, sign_ste


class TemperatureSchedule(Schedule):
    """``T = last ** ((progress - start) / (end - start))`` in between, hard from ``end`` on."""

    sharpness: Tensor
    hard: Tensor

    def __init__(self, start: float, end: float, last: float) -> None:
        super().__init__()
        if last < 1 or not 0 <= start < end <= 1:
            raise ValueError(
                f"SLB needs 0 <= start < end <= 1 <= sharpness, got {start}, {end}, {last}"
            )
        self.start, self.end, self.last = start, end, last
        self.register_buffer("sharpness", torch.ones(()))
        self.register_buffer("hard", torch.tensor(False))

    def set_progress(self, progress: float) -> None:
        """Cool down."""
        share = (progress - self.start) / (self.end - self.start)
        self.sharpness.fill_(self.last ** min(max(share, 0.0), 1.0))
        self.hard.fill_(progress >= self.end)


class SLBWeight(Side):
    """Expectation over {-1, +1} in training, the likelier value in evaluation."""

    def __init__(
        self,
        shape: Sequence[int],
        start: float,
        end: float,
        sharpness: float,
    ) -> None:
        super().__init__()
        self.schedule = TemperatureSchedule(start, end, sharpness)

    def forward(self, weight: Tensor) -> Tensor:
        """Weights in [-1, 1], -1 or +1 in evaluation; same shape as ``weight``."""
        if not self.training:
            return sign_ste(weight, identity)
        soft = torch.tanh(weight * (self.schedule.sharpness / math.sqrt(2)))
        return torch.where(self.schedule.hard, sign(weight.detach()), soft)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
