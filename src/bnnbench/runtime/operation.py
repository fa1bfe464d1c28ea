"""One operation of a packed file: what it names, which results it reads, its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from bnnbench.runtime.ops import DTYPES, OPS

PACKED = ("packed_conv", "packed_linear")


class Ref(NamedTuple):
    """The result of an operation, by its number; the input is number 0."""

    number: int


class Const(NamedTuple):
    """A constant, by its number."""

    number: int


class Operation(NamedTuple):
    """What one entry of the document says."""

    op: str
    args: list[Any]
    kwargs: dict[str, Any]

    def refs(self) -> list[int]:
        """Numbers of the results that it reads, one as often as it reads it."""
        return [value.number for value in self.leaves() if isinstance(value, Ref)]

    def constants(self) -> list[int]:
        """Numbers of the constants that it reads."""
        return [value.number for value in self.leaves() if isinstance(value, Const)]

    def leaves(self) -> Iterator[Any]:
        """All arguments, those in lists one by one."""
        return _leaves([self.args, list(self.kwargs.values())])

    def reading(self, numbers: Mapping[int, int]) -> Operation:
        """The same of other results, where ``numbers`` has them."""

        def other(value: Any) -> Any:
            if isinstance(value, list):
                return [other(each) for each in value]
            return Ref(numbers.get(value.number, value.number)) if isinstance(value, Ref) else value

        kwargs = {key: other(value) for key, value in self.kwargs.items()}
        return Operation(self.op, other(self.args), kwargs)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def filled(value: Any, values: Sequence[Any], number: Callable[[int], Tensor]) -> Any:
    """An argument with results and constants in the place of their numbers."""
    if isinstance(value, Ref):
        return values[value.number]
    if isinstance(value, Const):
        return number(value.number)
    if isinstance(value, list):
        return [filled(each, values, number) for each in value]
    return value


def parsed(entry: Any) -> Operation:
    """An entry of the document. Raises ValueError for an operation that nobody knows."""
    op, args, *rest = entry
    if op not in OPS and op not in PACKED:
        raise ValueError(f"{op} is no operation of this version")
    kwargs = {str(key): _value(value) for key, value in (rest[0] if rest else {}).items()}
    return Operation(op, _value(args), kwargs)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if not isinstance(value, str):
        return value
    kind, rest = value[:1], value[1:]
    if kind == "%":
        return Ref(int(rest))
    if kind == "$":
        return Const(int(rest))
    if kind == "#":
        return DTYPES[rest]
    if kind == "=":
        return float(rest)
    return rest
