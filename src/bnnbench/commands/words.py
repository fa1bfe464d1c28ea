"""What the commands that take ``key=value`` words without Hydra share: help, errors, lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from bnnbench.checks.errors import full_error, is_told, message
from bnnbench.records.names import absent

T = TypeVar("T")


def answered(doc: str | None, work: Callable[[Sequence[str]], T], bare: bool = False) -> T | None:
    """What ``work`` makes of the words of ``sys.argv``; None where ``doc`` was printed instead.

    An error that says what to do ends the command with one line. Without words the help is
    printed, unless the command may stand ``bare``.
    """
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]) or not (words or bare):
        print((doc or "").strip())
        return None
    try:
        return work(words)
    except Exception as error:
        if full_error() or not is_told(error):
            raise
        raise SystemExit(f"error: {message(error)}") from None


def meant(word: str, valid: Sequence[str]) -> str:
    """The nearest of the valid words, if one is near, and all of them."""
    close = get_close_matches(word, valid, n=1)
    return f"{f'did you mean {close[0]}? There' if close else 'there'} are {', '.join(valid)}"


def check_checkpoint(path: str) -> None:
    """Refuse what is no file where a network's is wanted. Raises ValueError."""
    if not (file := Path(path).expanduser()).is_file():
        raise ValueError(f"there is no checkpoint at {file}: {absent(path)}")


def names(value: str) -> list[str]:
    """What a list such as ``[a,b]`` holds, the brackets optional."""
    return [name.strip() for name in value.strip("[]").split(",") if name.strip()]
