"""What a quantizer is: a small module for the weights, one for the activations, perhaps a third.

Each side states ``bits`` and ``bases``. A 1-bit side also decomposes its value as
``value = scale * code + offset`` with ``code`` in {-1, +1}, so that counting and packing need no
special case for any method: AdaBin's {b1, b2}, a shifted sign and DoReFa's {0, 1} are one thing.
``Side`` and ``OutputOp`` declare all that the suite ever asks a method, with what a method without
it answers.
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
    """One side of a quantizer, and everything that a method may do.

    Weight sides are built as ``cls(shape, **options)`` from the weight's shape
    ``(out, in / groups, kh, kw)`` or ``(out, in)``; activation sides as
    ``cls(channels, **options)``.

    Attributes:
        bits: bits of one code, 32 for full precision.
        bases: how many binary tensors the value is a sum of.
        symmetric: the codes are signs of the input itself, so an input that is never negative
            (the output of a ReLU) would carry no information.
        training_only: names of parameters, or of modules with parameters, that no trained network
            needs.
        gradient_bits: of a weight side, bits of the updates that its weights get.
        error_bits: of an activation side, bits of the gradients that come back through it.
        optimizer: of a weight side, ``recipe.optimizer`` of the only one that trains it; None
            where any does.
        frequency: of a weight side, f where it quantizes ``sin(f w)``; else 0.
        has_readers: of a weight side, terms of the loss read the latent weight with gradient as
            well: a sum of several gradients depends in its last bit on the order of its parts.
    """

    bits: int = 1
    bases: int = 1
    symmetric: bool = False
    training_only: tuple[str, ...] = ()
    gradient_bits: int = 32
    error_bits: int = 32
    optimizer: str | None = None
    frequency: float = 0.0
    has_readers: bool = False

    def decompose(self, x: Tensor) -> Decomposition:
        """Scale, code and offset of ``self(x)``, without gradient. 1-bit sides only."""
        raise NotImplementedError(f"{type(self).__name__} has {self.bits} bits: no binary code")

    def modulated(self, weight: Tensor) -> Tensor:
        """The latent weight as the quantization error sees it, with gradient; same shape."""
        return weight

    def start(self, weight: Tensor) -> None:
        """Give the latent weight, in place, what it starts at if not Kaiming's values."""

    # What follows is called by callbacks/progress.py, in this order and without gradient, of those
    # sides whose class overrides it; each may change the latent weight in place.

    def epoch_start(self, weight: Tensor) -> None:
        """Before the first batch of an epoch, the schedules already moved."""

    def after_backward(self, weight: Tensor) -> None:
        """Before an optimiser step: ``weight.grad`` is complete and not yet clipped."""

    def after_step(self, weight: Tensor) -> None:
        """After an optimiser step."""


def overridden(side: Side, method: str) -> bool:
    """Whether the class of ``side`` has a ``method`` of its own, which does something."""
    return getattr(type(side), method) is not getattr(Side, method)


class OutputOp(nn.Module):
    """What stands behind a quantized convolution, called as ``op(out, x)``.

    Built as ``cls(layer, **options)`` from the layer.

    Attributes:
        for_linear: linear layers have it as well.
        gradient_bits: bits of the gradients that come back through it.
    """

    for_linear: bool = False
    gradient_bits: int = 32


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
