"""How the operations of a packed file are computed: many of them in one call of the kernel.

A file keeps plain operations. When it is loaded, a packed layer takes what follows it channel by
channel, the shortcut's addition included, and makes the codes of the layers that read its result;
the float convolution in front takes its activation and pool. What is left runs by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.grouping import Convolution, Group, Grouping, Shapes
from bnnbench.runtime.subsampling import without_copies

if TYPE_CHECKING:
    from bnnbench.runtime.graph import PackedNetwork

Values = list[Any]  # results by their numbers, and codes behind them
Run = Callable[[Values], None]


class Step(NamedTuple):
    """One step: what computes it, which numbers are not read any more behind it, and its group."""

    run: Run
    frees: list[int]
    group: Group


class Plan:
    """The steps of a network.

    Args:
        net: its operations, layers and constants.
        shapes: of the results, for some number of images; None of what is no map of floats.

    Attributes:
        steps: in order.
        room: how many numbers there are.
    """

    def __init__(self, net: PackedNetwork, shapes: Shapes) -> None:
        self.net = net
        self.count = len(net.operations) + 1
        self.room = 2 * self.count
        self.operations = without_copies(net.operations, net.outputs)
        groups = Grouping(self.operations, net.outputs, shapes, net.constant).groups
        self.steps = self._steps(groups)

    def _steps(self, groups: Mapping[int, Group]) -> list[Step]:
        """In the order of their results; each frees what none behind it reads."""
        made = {each for group in groups.values() for each in group.next}
        found: dict[int, tuple[Run, Group]] = {}
        last: dict[int, int] = {}
        for first, group in sorted(groups.items(), key=lambda item: item[1].numbers[-1]):
            result = group.numbers[-1]
            run, reads = self._run(first, group, first in made)
            found[result] = run, group
            last |= dict.fromkeys(reads, result)
        kept = {*self.net.outputs}
        return [
            Step(run, [read for read, end in last.items() if end == n and read not in kept], group)
            for n, (run, group) in found.items()
        ]

    def _run(self, first: int, group: Group, has_codes: bool) -> tuple[Run, list[int]]:
        """What computes a group, and the numbers that it reads."""
        operation, result = self.operations[first], group.numbers[-1]
        slots = [self.count + number for number in group.next]
        layers = [self._packed(number) for number in group.next]
        reads = operation.refs()
        if group.epilogue is not None:
            source = self.count + first if has_codes else reads[0]
            run = _layer_run(self._packed(first), group, source, layers, slots)
            return run, [source, *(n for n in (group.add, group.factor) if n is not None)]
        if group.stem is not None:
            return _stem_run(group, reads[0], layers, slots), reads
        if group.convolution is not None:
            return _float_run(group.convolution, reads[0], result), reads
        if group.function is not None:
            return _function_run(group.function, reads[0], result), reads
        return self.net.step(result, operation), reads

    def _packed(self, number: int) -> PackedConv2d:
        layer: nn.Module = self.net.layers[str(number)]
        assert isinstance(layer, PackedConv2d)
        return layer


def _layer_run(
    layer: PackedConv2d,
    group: Group,
    source: int,
    layers: Sequence[PackedConv2d],
    slots: Sequence[int],
) -> Run:
    add, after, keep, next = group.add, group.epilogue, group.is_kept, tuple(layers)
    times = group.factor
    result = group.numbers[-1]

    def run(values: Values) -> None:
        shortcut = None if add is None else values[add]
        factor = None if times is None else values[times]
        values[result], codes = layer.fused(
            values[source], epilogue=after, add=shortcut, factor=factor, next=next, keep=keep
        )
        for slot, made in zip(slots, codes, strict=True):
            values[slot] = made

    return run


def _stem_run(
    group: Group, source: int, layers: Sequence[PackedConv2d], slots: Sequence[int]
) -> Run:
    stem, result = group.stem, group.numbers[-1]
    assert stem is not None

    def run(values: Values) -> None:
        values[result], codes = stem.fused(values[source], next=layers)
        for slot, made in zip(slots, codes, strict=True):
            values[slot] = made

    return run


def _float_run(convolution: Convolution, source: int, result: int) -> Run:
    """A float convolution and the affine behind it, as one."""
    weight = convolution.weight.contiguous(memory_format=torch.channels_last)
    bias, options = convolution.bias, convolution.options

    def run(values: Values) -> None:
        values[result] = F.conv2d(values[source], weight, bias, *options)

    return run


def _function_run(function: Callable[[Any], Any], source: int, result: int) -> Run:
    def run(values: Values) -> None:
        values[result] = function(values[source])

    return run
