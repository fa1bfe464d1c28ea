"""What a quantizer is: two small modules, one for the weights and one for the activations.

Each side states ``bits`` and ``bases``. A 1-bit side also decomposes its value as
``value = scale * code + offset`` with ``code`` in {-1, +1}, so that counting and packing need no
special case for any method: AdaBin's {b1, b2}, a shifted sign and DoReFa's {0, 1} are one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnnbench.quantizers.surrogate import sign


class Decomposition(NamedTuple):
    """``value = scale * code + offset``; scale and offset broadcast against the code."""

    scale: Tensor
    code: Tensor
    offset: Tensor


class Side(nn.Module):
    """One side of a quantizer.

    Weight sides are built as ``cls(shape, **options)`` from the weight's shape
    ``(out, in / groups, kh, kw)`` or ``(out, in)``; activation sides as
    ``cls(channels, **options)``.

    Attributes:
        bits: bits of one code, 32 for full precision.
        bases: how many binary tensors the value is a sum of.
        symmetric: the codes are signs of the input itself, so an input that is never negative
            (the output of a ReLU) would carry no information.

    A side may also have ``training_only``, names of parameters (or of modules with parameters) that
    no trained network needs, and a weight side hooks, which ``callbacks/progress.py`` calls in this
    order: ``epoch_start(weight)``, ``after_backward(weight)`` once the gradient of an optimiser
    step is complete, ``after_step(weight)``.
    """

    bits: int = 1
    bases: int = 1
    symmetric: bool = False

    def decompose(self, x: Tensor) -> Decomposition:
        """Scale, code and offset of ``self(x)``, without gradient. 1-bit sides only."""
        raise NotImplementedError(f"{type(self).__name__} has {self.bits} bits: no binary code")


class Identity(Side):
    """Full precision: the twin of every quantizer."""

    bits = 32

    def __init__(self, shape: Sequence[int] | int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x


class Schedule(nn.Module):
    """State that follows training progress: buffers, so that it survives a resume."""

    def set_progress(self, progress: float) -> None:
        """Set the state for ``progress``, the finished fraction of the run in [0, 1]."""
        raise NotImplementedError


class EDESchedule(Schedule):
    """Slope of IR-Net's error decay estimator (arXiv 1909.10788, Eq. 12; also AdaBin's weights).

    ``t = t_min * (t_max / t_min) ** progress`` and ``k = max(1 / t, 1)``.
    """

    k: Tensor
    t: Tensor

    def __init__(self, t_min: float, t_max: float) -> None:
        super().__init__()
        if not 0 < t_min < t_max:
            raise ValueError(f"EDE needs 0 < t_min < t_max, got t_min={t_min}, t_max={t_max}")
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t", torch.zeros(()))
        self.register_buffer("k", torch.zeros(()))
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Steepen the slope: log-linear in the progress."""
        t = self.t_min * (self.t_max / self.t_min) ** progress
        self.t.fill_(t)
        self.k.fill_(max(1 / t, 1.0))


def per_filter(weight: Tensor) -> tuple[int, ...]:
    """The axes of one filter: all but the first (output) axis."""
    return tuple(range(1, weight.dim()))


def mean_magnitude(weight: Tensor) -> Tensor:
    """``E|w|`` of each filter, shape ``(out, 1, ...)``: the scale of XNOR-Net, Eq. 6."""
    return weight.abs().mean(dim=per_filter(weight), keepdim=True)


def scaled_sign(x: Tensor, scale: Tensor | float = 1.0, offset: Tensor | float = 0.0):
    """The decomposition whose code is ``sign(x)``."""
    scale, offset = torch.as_tensor(scale, dtype=x.dtype), torch.as_tensor(offset, dtype=x.dtype)
    return Decomposition(scale.detach(), sign(x.detach()), offset.detach())
