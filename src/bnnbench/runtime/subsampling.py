"""Slices: those that take all there is, and the ones in the shortcuts of CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bnnbench.runtime.operation import Operation, Ref

ALL = 2**63 - 1  # the end of a slice that has none


def without_copies(operations: Sequence[Operation], outputs: Sequence[int]) -> dict[int, Operation]:
    """The operations by number, without slices that take all there is."""
    found: dict[int, Operation] = {}
    same: dict[int, int] = {}
    for number, operation in enumerate(operations, start=1):
        operation = operation.reading(same)
        is_all = operation.op == "slice.Tensor" and _axis(operation)[1:] == (0, ALL, 1)
        if is_all and isinstance(source := operation.args[0], Ref):
            same[number] = source.number
        if number not in same or number in outputs:
            found[number] = operation
    return found


def _axis(operation: Operation) -> tuple[Any, ...]:
    """Axis, start, end and step of a slice."""
    rest = operation.args[1:]
    axis, start, end, step = [*rest, *[0, None, None, 1][len(rest) :]]
    return axis, start or 0, ALL if end is None else end, step


def subsampled(
    operations: Sequence[Operation], shapes: Sequence[Sequence[int] | None]
) -> Callable[[Tensor], Tensor] | None:
    """Every few pixels among zero channels, in one step, if that is what slices and a pad are.

    Args:
        operations: each but the first reads the result of the one before.
        shapes: of what the first one reads and of the last one's result.
    """
    *slices, pad = operations
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return None
    amounts, size = _amounts(pad), shapes[1][1:]  # pyright: ignore[reportOptionalSubscript]
    steps = [1, 1]
    for each in slices:
        axis, start, end, step = _axis(each)
        if axis not in (2, 3) or start != 0 or end != ALL or not isinstance(step, int):
            return None
        steps[axis - 2] *= step
    if amounts is None:
        return None
    first, last, (high, wide) = amounts[0], size[0] - amounts[1], steps

    def function(x: Tensor) -> Tensor:
        y = torch.empty((len(x), *size), memory_format=torch.channels_last).zero_()
        y[:, first:last] = x[:, :, ::high, ::wide]
        return y

    return function


def _amounts(pad: Operation) -> tuple[int, int] | None:
    """The zero channels before and behind, if that is all that is padded."""
    amounts, *more = pad.args[1:]
    if pad.op != "pad" or pad.kwargs or not all(isinstance(each, int) for each in amounts):
        return None
    if len(amounts) != 6 or any(amounts[:4]) or min(amounts) < 0:
        return None
    if more and (more[0] != "constant" or (len(more) > 1 and more[1] not in (None, 0))):
        return None
    return amounts[4], amounts[5]
