"""Arguments of a class against the types that its signature states, before one is built."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bnnbench.checks.kinds import (
    FLAG,
    LIST,
    MAPPING,
    NULL,
    TEXT,
    Kind,
    choice,
    number,
    shown,
    whole,
)

SIMPLE: dict[Any, Kind] = {
    bool: FLAG,
    int: whole(),
    float: number(),
    str: TEXT,
    type(None): NULL,
    list: LIST,
    dict: MAPPING,
}


def check_arguments(place: str, kind: type, given: Mapping[str, Any]) -> None:
    """Refuse a value that is none of the types that ``kind`` takes for an argument.

    Types that yaml has no values of, such as a path or a time, are left to the class.

    Args:
        place: where the arguments stand, for messages: ``callbacks.mine``.
        kind: the class.
        given: its arguments, in which what follows from other keys is still ``${...}``.

    Raises:
        ValueError: the message names the argument and what to give.
    """
    hints = _hints(kind)
    for name, value in given.items():
        wanted = _kind(hints[name]) if name in hints and "${" not in str(value) else None
        if wanted is not None and not wanted.holds(value):
            raise ValueError(f"{place}.{name}={shown(value)}: give {wanted.advice}")


def _hints(kind: type) -> dict[str, Any]:
    """The types of the arguments, those that a class hands on to its parent included."""
    found: dict[str, Any] = {}
    for each in kind.__mro__[:-1]:
        start = vars(each).get("__init__")
        if start is None:
            continue
        try:
            found = get_type_hints(start) | found
        except (NameError, TypeError):  # of names that only a type checker imports
            return found
        parameters = inspect.signature(start).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found
    return found


def _kind(hint: Any) -> Kind | None:
    """What values a type stands for; None where some are not to be judged here."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_kind(part) for part in get_args(hint)]
        return None if None in parts else _any_of([part for part in parts if part is not None])
    if get_origin(hint) is Literal:
        return choice(*get_args(hint))
    return SIMPLE.get(get_origin(hint) or hint)


def _any_of(kinds: list[Kind]) -> Kind:
    first, *others = kinds
    for other in others:
        first |= other
    return first
