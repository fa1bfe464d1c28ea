"""How the operations of a packed file are computed: many of them in one call of the kernel.

A file keeps plain operations. When it is loaded, a packed layer takes what follows it channel by
channel, the shortcut's addition included, and makes the codes of the layers that read its result;
the float convolution in front takes its activation and pool. What is left runs by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime.chain import Chain, epilogue, extended
from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.epilogue import Epilogue
from bnnbench.runtime.stem import MOST_INPUTS, Stem

if TYPE_CHECKING:
    from bnnbench.runtime.graph import Operation, PackedNetwork

Values = list[Any]  # results by their numbers, and codes behind them
LEAST_OUTPUTS = 8  # of a convolution in the kernel, whose vectors of outputs are longer still
Run = Callable[[Values], None]


@dataclass
class Group:
    """Operations in one step.

    Attributes:
        numbers: of the operations; the last one's result is the step's.
        add: the number of the shortcut.
        epilogue: what follows a packed layer.
        stem: the float convolution in front.
    """

    numbers: list[int]
    add: int | None = None
    epilogue: Epilogue | None = None
    stem: Stem | None = None
    next: list[int] = field(default_factory=list)
    is_kept: bool = True


class Step(NamedTuple):
    """One step: what it computes, and which numbers are not read any more behind it."""

    run: Run
    frees: list[int]


class Plan:
    """The steps of a network.

    Args:
        net: its operations, layers and constants.
        shapes: of the results, for some number of images.

    Attributes:
        steps: in order.
        room: how many numbers there are.
        groups: by the number of the first operation.
    """

    def __init__(self, net: PackedNetwork, shapes: Sequence[tuple[int, ...] | None]) -> None:
        self.net, self.shapes = net, shapes
        self.count = len(net.operations) + 1
        self.room = 2 * self.count
        self.operations = _without_copies(net.operations, net.outputs)
        self.readers: list[list[int]] = [[] for _ in range(self.count)]
        for number, operation in self.operations.items():
            for read in operation.refs():
                self.readers[read].append(number)
        self.groups: dict[int, Group] = {}
        self.taken: set[int] = set()
        for number in self.operations:
            if number not in self.taken:
                self.groups[number] = self._group(number)
                self.taken.update(self.groups[number].numbers)
        self._hand_over_codes()
        self.steps = self._steps()

    def _group(self, number: int) -> Group:
        op = self.operations[number].op
        if op == "packed_conv":
            return self._layer(number)
        if op == "conv2d":
            return self._convolution(number)
        if op == "slice.Tensor":
            return self._subsampling(number)
        return Group([number])

    def _layer(self, number: int) -> Group:
        """A packed layer and all that one epilogue can be."""
        group, before, after = Group([number], epilogue=Epilogue()), Chain(), None
        while (follower := self._follower(group.numbers[-1])) is not None:
            if (other := self._shortcut(follower, group)) is not None:
                group.add, after = other, Chain()
                group.numbers.append(follower)
                continue
            chain = self._extended(before if after is None else after, follower)
            if chain is None:
                break
            found = epilogue(chain, None) if after is None else epilogue(before, chain)
            if found is None:
                break
            before, after = (chain, None) if after is None else (before, chain)
            group.epilogue = found
            group.numbers.append(follower)
        return group

    def _follower(self, number: int) -> int | None:
        """The one operation that reads a result, if there is one and nothing else needs it."""
        readers = self.readers[number]
        if len(readers) != 1 or number in self.net.outputs or readers[0] in self.taken:
            return None
        return readers[0]

    def _shortcut(self, number: int, group: Group) -> int | None:
        """What operation ``number`` adds to the group's result, as large as that."""
        operation, own = self.operations[number], group.numbers[-1]
        if operation.op != "add.Tensor" or operation.kwargs or group.add is not None:
            return None
        read = operation.refs()
        if len(read) != 2 or len(operation.args) != 2 or read[0] == read[1]:
            return None
        other = read[1] if read[0] == own else read[0]
        return other if self.shapes[other] == self.shapes[own] else None

    def _extended(self, chain: Chain, number: int) -> Chain | None:
        operation = self.operations[number]
        if len(operation.refs()) != 1 or operation.refs()[0] != _ref(operation.args[0]):
            return None
        args = [self.net.constant(each) for each in operation.args[1:]]
        return extended(chain, operation.op, args, operation.kwargs)

    def _convolution(self, number: int) -> Group:
        """A float convolution with what follows it, in the kernel where it has few inputs."""
        group, operation = Group([number]), self.operations[number]
        shape, into = self.shapes[number], self.shapes[operation.refs()[0]]
        weight, bias, stride, padding, dilation, groups = self._options(operation)
        if not isinstance(weight, Tensor) or len(operation.refs()) != 1 or isinstance(padding, str):
            return group
        is_front = into is not None and into[1] <= MOST_INPUTS and groups == 1
        is_front = is_front and len(weight) >= LEAST_OUTPUTS
        is_front = is_front and list(dilation) == [1, 1] and shape is not None
        chain, pool = Chain(shift=bias), None
        while (follower := self._follower(group.numbers[-1])) is not None and pool is None:
            found = self._extended(chain, follower)
            if found is None or not (is_front or found == Chain(found.scale, found.shift)):
                pool = self._pool(follower) if is_front else None
                if pool is None:
                    break
            else:
                chain = found
            group.numbers.append(follower)
        if not is_front:
            return group
        scale = chain.scale
        weight = weight if scale is None else weight * scale.view(-1, 1, 1, 1)
        group.stem = Stem(
            weight,
            None if chain.shift is None else chain.shift.expand(len(weight)),
            stride=stride,
            padding=padding,
            activation=chain.activation(),
            pool=pool,
        )
        return group

    def _options(self, operation: Operation) -> list[Any]:
        given = [self.net.constant(each) for each in operation.args[1:]]
        defaults = [None, None, [1, 1], [0, 0], [1, 1], 1]
        return [*given, *defaults[len(given) :]]

    def _pool(self, number: int) -> tuple[int, int, int] | None:
        """Window, stride and padding of a max pool that the stem can be."""
        operation = self.operations[number]
        if operation.op != "max_pool2d" or operation.kwargs:
            return None
        _, window, *rest = operation.args
        stride, padding, dilation, ceil = [*rest, *[[], [0, 0], [1, 1], False][len(rest) :]]
        pairs = [window, stride or window, padding]
        if ceil or any(each != 1 for each in dilation) or any(len({*pair}) != 1 for pair in pairs):
            return None
        return pairs[0][0], pairs[1][0], pairs[2][0]

    def _subsampling(self, number: int) -> Group:
        """Slices and the zero channels around them, the shortcut of CIFAR ResNets."""
        numbers = [number]
        while (follower := self._follower(numbers[-1])) is not None:
            op = self.operations[follower].op
            if op not in ("slice.Tensor", "pad"):
                break
            numbers.append(follower)
            if op == "pad":
                break
        is_known = self.operations[numbers[-1]].op == "pad" and _subsampled(self, numbers)
        return Group(numbers) if is_known else Group([number])

    def _hand_over_codes(self) -> None:
        for group in self.groups.values():
            if group.epilogue is None and group.stem is None:
                continue
            result = group.numbers[-1]
            readers = self.readers[result]
            packed = [each for each in readers if self.operations[each].op == "packed_conv"]
            group.next = packed[:2]
            group.is_kept = result in self.net.outputs or len(group.next) < len(readers)

    def _steps(self) -> list[Step]:
        made = {each for group in self.groups.values() for each in group.next}
        runs: dict[int, tuple[Run, list[int]]] = {}
        for first, group in self.groups.items():
            runs[group.numbers[-1]] = self._run(first, group, first in made)
        last: dict[int, int] = {}
        for number in sorted(runs):
            reads = runs[number][1]
            last |= dict.fromkeys(reads, number)
        kept = {*self.net.outputs}
        return [
            Step(runs[n][0], [read for read, end in last.items() if end == n and read not in kept])
            for n in sorted(runs)
        ]

    def _run(self, first: int, group: Group, has_codes: bool) -> tuple[Run, list[int]]:
        """What computes a group, and the numbers that it reads."""
        operation, result = self.operations[first], group.numbers[-1]
        layers = [self._packed(number) for number in group.next]
        slots = [self.count + number for number in group.next]
        if group.epilogue is not None:
            source = self.count + first if has_codes else operation.refs()[0]
            run = _layer_run(self._packed(first), group, source, result, layers, slots)
            return run, [source] if group.add is None else [source, group.add]
        reads = operation.refs()
        if group.stem is not None:
            return _stem_run(group.stem, reads[0], result, layers, slots), reads
        if len(group.numbers) == 1:
            return self.net.step(result, operation), reads
        if operation.op == "conv2d":
            return self._float_run(group, reads[0]), reads
        function, source = _subsampled(self, group.numbers), reads[0]
        assert function is not None

        def run_subsampling(values: Values) -> None:
            values[result] = function(values[source])

        return run_subsampling, reads

    def _packed(self, number: int) -> PackedConv2d:
        layer = self.net.layers[str(number)]
        assert isinstance(layer, PackedConv2d)
        return layer

    def _float_run(self, group: Group, source: int) -> Run:
        """A float convolution and the affine behind it, as one."""
        weight, bias, *options = self._options(self.operations[group.numbers[0]])
        chain: Chain | None = Chain(shift=bias)
        for number in group.numbers[1:]:
            chain = chain and self._extended(chain, number)
        assert chain is not None
        scale = None if chain.scale is None else chain.scale.view(-1, 1, 1, 1)
        scaled = weight if scale is None else weight * scale
        weight = scaled.contiguous(memory_format=torch.channels_last)
        shift = None if chain.shift is None else chain.shift.expand(len(weight)).contiguous()
        result = group.numbers[-1]

        def run(values: Values) -> None:
            values[result] = F.conv2d(values[source], weight, shift, *options)

        return run


def _layer_run(
    layer: PackedConv2d,
    group: Group,
    source: int,
    result: int,
    layers: list[PackedConv2d],
    slots: list[int],
) -> Run:
    add, after, keep, next = group.add, group.epilogue, group.is_kept, tuple(layers)

    def run(values: Values) -> None:
        shortcut = None if add is None else values[add]
        values[result], codes = layer.fused(
            values[source], epilogue=after, add=shortcut, next=next, keep=keep
        )
        for slot, made in zip(slots, codes, strict=True):
            values[slot] = made

    return run


def _stem_run(
    stem: Stem, source: int, result: int, layers: list[PackedConv2d], slots: list[int]
) -> Run:
    def run(values: Values) -> None:
        values[result], codes = stem.fused(values[source], next=layers)
        for slot, made in zip(slots, codes, strict=True):
            values[slot] = made

    return run


def _ref(value: Any) -> int | None:
    return getattr(value, "number", None)


def _without_copies(
    operations: Sequence[Operation], outputs: Sequence[int]
) -> dict[int, Operation]:
    """The operations by number, without slices that take all there is."""
    from bnnbench.runtime.graph import replaced

    found: dict[int, Operation] = {}
    same: dict[int, int] = {}
    for number, operation in enumerate(operations, start=1):
        operation = replaced(operation, same)
        if operation.op == "slice.Tensor" and _axis(operation)[1:] == (0, ALL, 1):
            same[number] = operation.refs()[0]
        if number not in same or number in outputs:
            found[number] = operation
    return found


ALL = 2**63 - 1  # the end of a slice that has none


def _axis(operation: Operation) -> tuple[Any, ...]:
    """Axis, start, end and step of a slice."""
    rest = operation.args[1:]
    axis, start, end, step = [*rest, *[0, None, None, 1][len(rest) :]]
    return axis, start or 0, ALL if end is None else end, step


def _subsampled(plan: Plan, numbers: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
    """Every few pixels among zero channels, if that is what these operations are."""
    *slices, pad = [plan.operations[number] for number in numbers]
    steps = [1, 1]
    for each in slices:
        axis, start, end, step = _axis(each)
        if axis not in (2, 3) or start != 0 or end != ALL or not isinstance(step, int):
            return None
        steps[axis - 2] *= step
    amounts, *more = pad.args[1:]
    shape = plan.shapes[numbers[-1]]
    if pad.kwargs or len(amounts) != 6 or any(amounts[:4]) or min(amounts) < 0 or shape is None:
        return None
    if more and (more[0] != "constant" or (len(more) > 1 and more[1] not in (None, 0))):
        return None
    first, size = amounts[4], shape[1:]
    last, (high, wide) = size[0] - amounts[5], steps

    def function(x: Tensor) -> Tensor:
        y = torch.empty((len(x), *size), memory_format=torch.channels_last).zero_()
        y[:, first:last] = x[:, :, ::high, ::wide]
        return y

    return function
