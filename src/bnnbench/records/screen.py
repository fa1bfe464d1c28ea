"""What a stream can show: a terminal that is painted anew, or lines."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO

USUAL = (80, 24)


def can_repaint(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which lines can be replaced, with somebody before it."""
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    return _is_terminal(stream)


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the stream's terminal now; COLUMNS and LINES go before."""
    found = USUAL
    with suppress(OSError, ValueError):
        found = tuple(os.get_terminal_size(stream.fileno()))
    typed = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    columns, lines = (
        int(word) if word.isdecimal() and int(word) > 0 else number or usual
        for word, number, usual in zip(typed, found, USUAL, strict=True)
    )
    return columns, lines


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False
