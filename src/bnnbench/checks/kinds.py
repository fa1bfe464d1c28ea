"""Kinds of values that a config key may have, each with the advice that a wrong one is answered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A set of values.

    Attributes:
        advice: what to give, in words that follow "give ".
        holds: whether a value, as yaml has it, belongs to the set.
    """

    advice: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Kind) -> Kind:
        def either(value: Any) -> bool:
            return self.holds(value) or other.holds(value)

        return Kind(f"{self.advice} or {other.advice}", either)


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """Whole numbers from ``least`` to ``most``; 64.0 is none."""

    def holds(value: Any) -> bool:
        return type(value) is int and _within(value, least, most)

    bounds = "" if least is None else f" from {least} {'on' if most is None else f'to {most}'}"
    return Kind(f"a whole number{bounds}", holds)


def number(least: float | None = None, above: float | None = None, below: float = math.inf) -> Kind:
    """Finite numbers, whole or not, from ``least`` on or above ``above``, and below ``below``."""

    def holds(value: Any) -> bool:
        numeric = type(value) in (int, float) and math.isfinite(value)
        return (
            numeric and _within(value, least) and (above is None or value > above) and value < below
        )

    bounds = [
        *([] if least is None else [f"from {least:g} on"]),
        *([] if above is None else [f"above {above:g}"]),
        *([f"below {below:g}"] if below < math.inf else []),
    ]
    return Kind(" ".join(["a number", " and ".join(bounds)]).strip(), holds)


def choice(*options: Any) -> Kind:
    """One of ``options``; 1 is not true and 1.0 is not 1."""

    def holds(value: Any) -> bool:
        return any(value == option and type(value) is type(option) for option in options)

    words = [shown(option) for option in options]
    return Kind(" or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words), holds)


def listed(kind: Kind) -> Kind:
    """Lists, also empty ones, of values of a kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(map(kind.holds, value))

    return Kind(f"a list, such as [...], in which each is {kind.advice}", holds)


def mapped(kind: Kind) -> Kind:
    """Mappings, also empty ones, to values of a kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(map(kind.holds, value.values()))

    return Kind(f"a mapping, such as {{key: ...}}, in which each is {kind.advice}", holds)


def shown(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def _within(value: float, least: float | None, most: float | None = None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


FLAG = choice(True, False)
NULL = choice(None)
TEXT = Kind("a text", lambda value: isinstance(value, str))
NAMES = listed(TEXT)
MAPPING = Kind("a mapping, such as {key: ...}", lambda value: isinstance(value, dict))
LIST = Kind("a list, such as [...]", lambda value: isinstance(value, list))
SHARE = number(above=0, below=1)
