"""Signs of life while many runs are planned."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

EVERY = 3.0  # seconds between two lines
T = TypeVar("T")


def counted(items: Sequence[T], doing: str, what: str) -> Iterator[T]:
    """The items, and while they take long a line on stderr: `composing 340 of 1,000 cells`."""
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(f"{doing} {done:,} of {len(items):,} {what}", file=sys.stderr, flush=True)
        yield item
