"""Tables of pages: columns, cells with their marks, and what may be ranked with what."""

from __future__ import annotations

import re
from typing import NamedTuple

from bnnbench.report.markup import MISSING
from bnnbench.report.notes import MARKS

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Mark(NamedTuple):
    """A word beside a cell or in its place; its hint is ``WHY[kind]``, behind what why says."""

    kind: str
    text: str
    why: str = ""


WHY = {
    "stale": "older than the code of its method as it is now: run it again with force=true",
    "unverified": "recalled: nobody of us has read this number at its source",
    "swept": "the best cell of a sweep, so selected on test data",
    "missing": "not run, not finished, not known, or no option of the row",
    "damaged": "its file cannot be read",
    "failed": "the run left an error",
    "dirty": "measured with uncommitted changes",
    "partial": "the run ended before its planned length, or saw part of the data",
    "local": "in the logs of this machine, not promoted into results",
    "rank": "with the same data, bits, budget, recipe and structure",
    "alone": "not ranked: nothing else here shares its data, bits, budget, recipe and structure",
    "printed": "not ranked: published elsewhere, under other conditions",
}
_WORDS = {"unverified": "recalled", "swept": "best of sweep", "missing": MISSING, "alone": MISSING}
_WORDS |= {"printed": MISSING}
_SIGNS = {MARKS[kind]: kind for kind in ("stale", "unverified", "swept")}


def mark(kind: str, why: str = "") -> Mark:
    """A mark in its usual word."""
    return Mark(kind, _WORDS.get(kind, kind), why)


class Cell(NamedTuple):
    """Text, its key for sorting ("" for none), the page that it leads to, marks."""

    text: str
    order: str = ""
    address: str = ""
    marks: tuple[Mark, ...] = ()


class Column(NamedTuple):
    """A column: facets can be filtered by; hidden ones are shown on demand.

    narrow: whether it is shown on a phone as well.
    """

    title: str
    why: str = ""
    number: bool = False
    facet: str = ""
    shown: bool = True
    narrow: bool = False


class Line(NamedTuple):
    """A row: its cells, the two headings that it stands under, with their keys for sorting.

    point: score in percent, OPs, bytes and milliseconds for the chart, "" where unknown; or "".
    """

    cells: list[Cell]
    group: tuple[str, str]
    within: tuple[str, str]
    point: str = ""


class Grid(NamedTuple):
    """A table of a page."""

    name: str
    columns: list[Column]
    lines: list[Line]


def order_of(text: str) -> str:
    """The number that a text begins with, as a key for sorting; "" for none."""
    found = _NUMBER.match(text.strip())
    return found[0] if found else ""


def cell_of(text: str, number: bool, reason: str = "", address: str = "") -> Cell:
    """A cell of a comparison table, its signs turned into marks.

    reason: why the row has no result, for a cell that says so.
    """
    if text == MISSING:
        return Cell("", marks=(mark("missing"),))
    if text in ("failed", "damaged"):
        return Cell("", address=address, marks=(mark(text, reason),))
    marks: list[Mark] = []
    while number and text[-1:] in _SIGNS:
        marks.append(mark(_SIGNS[text[-1]]))
        text = text[:-1]
    return Cell(text, order_of(text) if number else "", address, tuple(marks))
