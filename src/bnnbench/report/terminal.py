"""A table for a terminal: no line is longer than its width, and no row is wrapped.

What all rows share stands in a line, columns that do not fit follow in a block of their own, texts
that are too long for a column are shortened there and written out below. The files keep everything
as it is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from bnnbench.report.markup import MISSING, Table, one_line, right_aligned

GAP = "  "
LEAST = 20  # columns that any terminal is taken to have
LONGEST = 32  # columns of a text, before it is shortened


@dataclass
class Column:
    """A header and the text of each row, with the place that they are given."""

    header: str
    texts: list[str]
    right: bool = False

    @property
    def key(self) -> bool:
        """Whether its texts tell the rows apart."""
        return len(set(self.texts)) == len(self.texts)

    def width(self, most: int) -> int:
        """Columns that it takes; its header is wrapped at words."""
        words = [*self.header.split(), *self.texts]
        return min(most, max(map(cell_len, words), default=1))


def fitted(table: Table, width: int) -> str:
    """The table in lines of at most ``width`` columns, 20 at least."""
    width = max(width, LEAST)
    most = min(LONGEST, (width - len(GAP)) // 2)
    columns, alike = _told(_columns(table))
    short = [Column(c.header, [shorter(t, most) for t in c.texts], c.right) for c in columns]
    lines = wrapped(one_line(table.title), width)
    for block in _blocks(short, width, most):
        lines += ["", *_grid(block, most)]
    notes = _with_alike([one_line(note) for note in table.notes], alike)
    notes[:0] = _written_out(columns, short)
    lines += [""] if notes else []
    for note in notes:
        first, *others = wrapped(note, width - 2) or [""]
        lines += [f"- {first}", *(f"  {line}" for line in others)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most ``width`` columns; only words longer than that are broken."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if any(cell_len(line) > width for line in lines):  # letters of two columns
        lines = textwrap.wrap(text, max(1, width // 2), break_on_hyphens=False)
    return lines


def shorter(text: str, width: int) -> str:
    """The text in at most ``width`` columns, its middle left out: ends tell texts apart."""
    if cell_len(text) <= width:
        return text
    start, end = text[: width // 2], text[-((width - 1) // 2) :]
    while cell_len(start) + cell_len(end) >= width:
        start, end = start[:-1], end[1:]
    return f"{start}\N{HORIZONTAL ELLIPSIS}{end}"


def _columns(table: Table) -> list[Column]:
    lines = [table.header, *table.rows]
    right = right_aligned(lines)
    texts = [[one_line(line[number]) for line in lines] for number in range(len(table.header))]
    return [Column(head, rest, r) for (head, *rest), r in zip(texts, right, strict=True)]


def _told(columns: list[Column]) -> tuple[list[Column], list[str]]:
    """The columns that say something of each row, and the others in words.

    The first one, which names the rows, and scores are never among the others.
    """
    first, *rest = columns
    same = [c for c in rest if len(c.texts) > 1 and len(set(c.texts)) == 1 and "%" not in c.header]
    alike = [f"{column.header} {column.texts[0]}" for column in same if column.texts[0] != MISSING]
    return [first, *(column for column in rest if column not in same)], alike


def _with_alike(notes: list[str], alike: list[str]) -> list[str]:
    """The notes, with what columns would have said of all rows in the one that says so."""
    if not alike:
        return notes
    start = "all rows: "
    told = ", ".join(alike)
    for number, note in enumerate(notes):
        if note.startswith(start):
            notes[number] = f"{start}{told}, {note.removeprefix(start)}"
            return notes
    return [start + told, *notes]


def _blocks(columns: list[Column], width: int, most: int) -> list[list[Column]]:
    """The columns in blocks that fit, each beginning with one that tells the rows apart."""
    first, *rest = columns
    if not first.key and _total(columns, most) > width:
        numbers = [str(number) for number in range(1, 1 + len(first.texts))]
        first, rest = Column("#", numbers, right=True), columns
    blocks = [[first]]
    for column in rest:
        if _total([*blocks[-1], column], most) > width:
            blocks.append([first])
        blocks[-1].append(column)
    return blocks


def _total(columns: Sequence[Column], most: int) -> int:
    return sum(column.width(most) for column in columns) + len(GAP) * (len(columns) - 1)


def _grid(columns: Sequence[Column], most: int) -> list[str]:
    """Header, rule and a line a row."""
    widths = [column.width(most) for column in columns]
    heads = [wrapped(c.header, width) for c, width in zip(columns, widths, strict=True)]
    height = max(map(len, heads))
    lines = [[""] * (height - len(head)) + head for head in heads]  # they end in one line
    texts = [[*head, "-" * w, *c.texts] for head, w, c in zip(lines, widths, columns, strict=True)]
    return [
        GAP.join(
            _padded(text, width, column.right)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        for line in zip(*texts, strict=True)
    ]


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _written_out(columns: Sequence[Column], short: Sequence[Column]) -> list[str]:
    """Each text that was shortened, behind the name of its column."""
    notes: dict[str, None] = {}
    for whole, cut in zip(columns, short, strict=True):
        pairs = zip(whole.texts, cut.texts, strict=True)
        notes |= {f"{whole.header}: {text}": None for text, seen in pairs if text != seen}
    return list(notes)
