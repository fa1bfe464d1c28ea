"""What follows a layer, channel by channel, gathered into the numbers of one epilogue."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bnnbench.runtime.epilogue import Activation, Epilogue


@dataclass(frozen=True)
class Chain:
    """``clamp(slopes(scale * v + shift) + more, low, high)``, each part of it None or nothing.

    ``slopes`` multiplies by ``positive`` where its argument is not negative, else ``negative``.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    positive: Tensor | None = None
    negative: Tensor | None = None
    more: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_clamped(self) -> bool:
        """Whether nothing but another clamp can follow."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def is_affine(self) -> bool:
        """Whether it is nothing but a multiply-add."""
        return self.positive is None and self.more is None and not self.is_clamped

    def affine(self, scale: Tensor | None, shift: Tensor | None) -> Chain | None:
        """The chain and a multiply-add behind it, or None where that is no chain."""
        if self.is_clamped:
            return None
        if self.positive is None:
            carried = times(self.shift, scale) if self.shift is not None else None
            return replace(self, scale=times(self.scale, scale), shift=plus(carried, shift))
        carried = times(self.more, scale) if self.more is not None else None
        both = times(self.positive, scale), times(self.negative, scale)
        return replace(self, positive=both[0], negative=both[1], more=plus(carried, shift))

    def slopes(self, positive: Tensor, negative: Tensor) -> Chain | None:
        """The chain and a kink at 0 behind it, or None where that is no chain."""
        if self.is_clamped or self.positive is not None:
            return None
        return replace(self, positive=positive, negative=negative)

    def clamped(self, low: float, high: float) -> Chain:
        """The chain and a clamp behind it."""
        return replace(
            self,
            low=min(max(self.low, low), high),
            high=min(max(self.high, low), high),
        )

    def activation(self) -> Activation | None:
        """What stands behind ``scale * v + shift``."""
        if self.positive is None and not self.is_clamped:
            return None
        return Activation(self.positive, self.negative, self.more, self.low, self.high)

    def behind_sum(self) -> tuple[Tensor | None, Activation | None] | None:
        """What is added before the sum, and the activation behind it; None where there is none.

        An activation begins with its kink: a shift before that belongs to what is summed up.
        """
        if self.positive is None or self.negative is None:
            if self == Chain():
                return None, None
            return None, Activation(self.scale, self.scale, self.shift, self.low, self.high)
        if self.scale is None:
            return self.shift, self.activation()
        shift = None if self.shift is None else self.shift / self.scale
        if bool((self.scale == 0).any()) or not (shift is None or bool(shift.isfinite().all())):
            return None
        is_up = self.scale > 0
        positive = self.scale * torch.where(is_up, self.positive, self.negative)
        negative = self.scale * torch.where(is_up, self.negative, self.positive)
        return shift, Activation(positive, negative, self.more, self.low, self.high)


def epilogue(before: Chain, after: Chain | None, has_factor: bool = False) -> Epilogue | None:
    """Both chains, before and behind the shortcut's addition, if one epilogue can be both.

    Behind a factor the first one begins with its kink as well.
    """
    last = None
    if after is not None:
        if (found := after.behind_sum()) is None:
            return None
        shift, last = found
        shifted = before if shift is None else before.affine(None, shift)
        if shifted is None:
            return None
        before = shifted
    if has_factor:
        shift, first = before.behind_sum() or (torch.zeros(1), None)
        return Epilogue(before=first, after=last) if shift is None else None
    return Epilogue(before.scale, before.shift, before.activation(), last)


def times(value: Tensor | None, factor: Tensor | None) -> Tensor | None:
    """The product, where None is 1."""
    if value is None or factor is None:
        return factor if value is None else value
    return value * factor


def plus(value: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum, where None is 0."""
    if value is None or more is None:
        return more if value is None else value
    return value + more


def extended(chain: Chain, op: str, args: list[Any], kwargs: dict[str, Any]) -> Chain | None:
    """``chain`` and an operation of a packed file behind it, or None where that is no chain.

    Args:
        op: as the file names it.
        args: those behind the first, constants as tensors.
        kwargs: likewise; none of the operations here takes any.
    """
    make = _EXTENSIONS.get(op)
    if make is None or kwargs or any(not isinstance(each, _NUMBERS) for each in args):
        return None
    flat = [each.flatten() if isinstance(each, Tensor) else each for each in args]
    return make(chain, *flat)


_NUMBERS = (Tensor, int, float, type(None))


def _prelu(chain: Chain, slope: Tensor) -> Chain | None:
    return chain.slopes(torch.ones_like(slope), slope)


def _leaky_relu(chain: Chain, slope: float = 0.01) -> Chain | None:
    return _prelu(chain, torch.tensor([slope]))


def _clamp(chain: Chain, low: Any = None, high: Any = None) -> Chain | None:
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return chain.clamped(-math.inf if low is None else low, math.inf if high is None else high)


_EXTENSIONS: dict[str, Callable[..., Chain | None]] = {
    "affine": Chain.affine,
    "slopes": Chain.slopes,
    "prelu": _prelu,
    "leaky_relu": _leaky_relu,
    "relu": lambda chain: _leaky_relu(chain, 0.0),
    "relu6": lambda chain: chain.clamped(0.0, 6.0),
    "hardtanh": lambda chain, low=-1.0, high=1.0: _clamp(chain, low, high),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda chain, high: _clamp(chain, None, high),
}
