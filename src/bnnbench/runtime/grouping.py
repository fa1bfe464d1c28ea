"""Which operations of a packed file are one step: a layer and all that its call can compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bnnbench.runtime.chain import Chain, epilogue, extended
from bnnbench.runtime.epilogue import Epilogue
from bnnbench.runtime.mean import window_mean
from bnnbench.runtime.operation import Operation, Ref
from bnnbench.runtime.stem import MOST_INPUTS, Stem
from bnnbench.runtime.subsampling import subsampled

LEAST_OUTPUTS = 8  # of a convolution in the kernel, whose vectors of outputs are longer still
MOST_READERS = 2  # whose codes are made in one call
Shapes = Sequence[tuple[int, ...] | None]


@dataclass
class Convolution:
    """A convolution in floats, the affine behind it folded in, and its options."""

    weight: Tensor
    bias: Tensor | None
    options: list[Any]  # stride, padding, dilation, groups


@dataclass
class Group:
    """Operations in one step.

    Attributes:
        numbers: of the operations; the last one's result is the step's.
        add: the number of the shortcut.
        factor: the number of what the packed layer is multiplied by, one number a pixel.
        epilogue: what follows a packed layer; None where the group is none.
        stem: the float convolution in front.
        convolution: another float convolution.
        function: of one input, computes the whole group.
        next: numbers of the packed layers whose codes the step makes.
        is_kept: whether anything needs the result itself.
    """

    numbers: list[int]
    add: int | None = None
    factor: int | None = None
    epilogue: Epilogue | None = None
    stem: Stem | None = None
    convolution: Convolution | None = None
    function: Callable[[Tensor], Tensor] | None = None
    next: list[int] = field(default_factory=list)
    is_kept: bool = True


class Grouping:
    """The operations of a network as groups.

    Args:
        operations: by number, in order.
        outputs: numbers of the results that the network gives.
        shapes: of the results, for some number of images; None of what is no map of floats.
        constant: gives a constant among arguments as a tensor, and what is none as it is.

    Attributes:
        groups: by the number of the first operation, in order.
    """

    def __init__(
        self,
        operations: Mapping[int, Operation],
        outputs: Sequence[int],
        shapes: Shapes,
        constant: Callable[[Any], Any],
    ) -> None:
        self.operations, self.outputs = operations, outputs
        self.shapes, self.constant = shapes, constant
        self.readers: list[list[int]] = [[] for _ in shapes]
        for number, operation in operations.items():
            for read in operation.refs():
                self.readers[read].append(number)
        self.groups: dict[int, Group] = {}
        self.taken: set[int] = set()
        for number in operations:
            if number not in self.taken:
                self.groups[number] = self._group(number)
                self.taken.update(self.groups[number].numbers)
        for group in self.groups.values():
            self._hand_over_codes(group)

    def _group(self, number: int) -> Group:
        op = self.operations[number].op
        if op == "packed_conv":
            return self._layer(number)
        if op == "conv2d":
            return self._convolution(number)
        if op == "slice.Tensor":
            return self._subsampling(number)
        if op == "abs":
            return self._window_mean(number)
        return Group([number])

    def _layer(self, number: int) -> Group:
        """A packed layer and all that one epilogue can be."""
        group, before, after = Group([number], epilogue=Epilogue()), Chain(), None
        while (follower := self._follower(group.numbers[-1])) is not None:
            if (other := self._factor(follower, group)) is not None:
                group.factor = other
                group.numbers.append(follower)
                continue
            if (other := self._shortcut(follower, group)) is not None:
                group.add, after = other, Chain()
                group.numbers.append(follower)
                continue
            chain = self._extended(before if after is None else after, follower)
            if chain is None:
                break
            chains = (chain, None) if after is None else (before, chain)
            if (found := epilogue(*chains, has_factor=group.factor is not None)) is None:
                break
            before, after = chains
            group.epilogue = found
            group.numbers.append(follower)
        return group

    def _follower(self, number: int) -> int | None:
        """The one operation that reads a result, if there is one and nothing else needs it."""
        readers = self.readers[number]
        if len(readers) != 1 or number in self.outputs or readers[0] in self.taken:
            return None
        return readers[0]

    def _factor(self, number: int, group: Group) -> int | None:
        """What operation ``number`` multiplies the group's first result by, one number a pixel."""
        operation, own = self.operations[number], group.numbers[-1]
        read, shape = operation.refs(), self.shapes[own]
        if operation.op != "mul.Tensor" or operation.kwargs or len(group.numbers) > 1:
            return None
        if len(read) != 2 or len(operation.args) != 2 or shape is None:
            return None
        other = read[1] if read[0] == own else read[0]
        return other if self.shapes[other] == (shape[0], 1, *shape[2:]) else None

    def _window_mean(self, number: int) -> Group:
        """Magnitudes, their mean over channels, and the same factor for a window of them."""
        numbers = [number]
        while len(numbers) < 3 and (follower := self._follower(numbers[-1])) is not None:
            numbers.append(follower)
        chosen = [self.operations[each] for each in numbers]
        reads_map = self.shapes[number] is not None and all(len(c.refs()) == 1 for c in chosen)
        if len(chosen) < 3 or not reads_map or not isinstance(chosen[2].args[0], Ref):
            return Group([number])
        mean = window_mean(chosen, self._options(chosen[2]))
        return Group([number]) if mean is None else Group(numbers, function=mean.forward)

    def _shortcut(self, number: int, group: Group) -> int | None:
        """What operation ``number`` adds to the group's result, as large as that."""
        operation, own = self.operations[number], group.numbers[-1]
        if operation.op != "add.Tensor" or operation.kwargs or group.add is not None:
            return None
        read = operation.refs()
        if len(read) != 2 or len(operation.args) != 2 or self.shapes[own] is None:
            return None
        other = read[1] if read[0] == own else read[0]
        return other if self.shapes[other] == self.shapes[own] else None

    def _extended(self, chain: Chain, number: int) -> Chain | None:
        operation = self.operations[number]
        if not isinstance(operation.args[0], Ref) or len(operation.refs()) != 1:
            return None
        args = [self.constant(each) for each in operation.args[1:]]
        return extended(chain, operation.op, args, operation.kwargs)

    def _convolution(self, number: int) -> Group:
        """A float convolution with what follows it, in the kernel where it has few inputs."""
        group, operation = Group([number]), self.operations[number]
        weight, bias, *options = self._options(operation)
        reads_map = isinstance(operation.args[0], Ref) and len(operation.refs()) == 1
        if not (reads_map and isinstance(weight, Tensor)) or operation.kwargs:
            return group
        is_front = self._is_front(number, weight, options)
        chain, pool = Chain(shift=bias), None
        while pool is None and (follower := self._follower(group.numbers[-1])) is not None:
            found = self._extended(chain, follower)
            if found is not None and (is_front or found.is_affine):
                chain = found
            elif not is_front or (pool := self._pool(follower)) is None:
                break
            group.numbers.append(follower)
        weight = weight if chain.scale is None else weight * chain.scale.view(-1, 1, 1, 1)
        bias = None if chain.shift is None else chain.shift.expand(len(weight)).contiguous()
        if is_front:
            stride, padding, *_ = options
            act = chain.activation()
            group.stem = Stem(
                weight, bias, stride=stride, padding=padding, activation=act, pool=pool
            )
        else:
            group.convolution = Convolution(weight, bias, options)
        return group

    def _is_front(self, number: int, weight: Tensor, options: list[Any]) -> bool:
        """Whether a convolution is one that the kernel computes in floats."""
        into = self.shapes[self.operations[number].refs()[0]]
        _, _, dilation, groups = options
        if self.shapes[number] is None or into is None or into[1] > MOST_INPUTS:
            return False
        return groups == 1 and list(dilation) == [1, 1] and len(weight) >= LEAST_OUTPUTS

    def _options(self, operation: Operation) -> list[Any]:
        given = [self.constant(each) for each in operation.args[1:]]
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
        chosen = [self.operations[each] for each in numbers]
        read = chosen[0].refs()
        if chosen[-1].op != "pad" or any(len(each.refs()) != 1 for each in chosen):
            return Group([number])
        function = subsampled(chosen, [self.shapes[read[0]], self.shapes[numbers[-1]]])
        return Group([number]) if function is None else Group(numbers, function=function)

    def _hand_over_codes(self, group: Group) -> None:
        """Let the step make the codes of the packed layers that read its result."""
        if group.epilogue is None and group.stem is None:
            return
        result = group.numbers[-1]
        readers = self.readers[result]
        packed = [each for each in readers if self.operations[each].op == "packed_conv"]
        group.next = packed[:MOST_READERS]
        group.is_kept = result in self.outputs or len(group.next) < len(readers)
