"""One table of texts, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "†": r"$\dagger$",
    "§": r"\S{}",
    "\N{EN DASH}": "--",
}
MISSING = "\N{EN DASH}"  # never run, not finished or unknown: never an invented number
_HTML = re.compile(r"<|&(?=#|\w+;)")
_LINK = re.compile(r"\](?=[(\[:])")  # between the text of a link or picture and its place
_PIPE = re.compile(r"(\\*)\|")
_SIGNED = re.compile(r"[+-][\d.]+(e[+-]?\d+)?( ± [\d.]+)?[*†^§]?")
_NUMBER = re.compile(rf"[+-]?\d|{MISSING}$|failed$")


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the plain value for one, a dash for none. Two decimals."""
    if not values:
        return MISSING
    text = f"{mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.2f}"


@dataclass
class Table:
    """A title, a header, rows of the same length, and notes printed under the rows."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row} has not the {len(self.header)} cells of the header")

    def markdown(self) -> str:
        """Plain Markdown: one row a line, padded for reading in a terminal, never wrapped."""
        body = grid([[markdown(cell) for cell in line] for line in self._lines()])
        notes = "".join(f"- {markdown(note)}\n" for note in self.notes)
        return f"# {markdown(self.title)}\n\n{body}\n" + (f"\n{notes}" if notes else "")

    def csv(self) -> str:
        """Header and rows, without title and notes, so that any CSV reader takes it."""
        out = io.StringIO()
        lines = [[csv_cell(cell) for cell in line] for line in self._lines()]
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue()

    def latex(self) -> str:
        """A `table` with a plain `tabular` (no package needed); notes follow in small print."""
        right = right_aligned(self._lines())
        columns = "".join("r" if each else "l" for each in right)
        header, *rows = (_row(" & ".join(map(_latex, line))) for line in self._lines())
        notes = [rf"\par\footnotesize {_latex(note)}" for note in self.notes]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                *(r"\hline", header, r"\hline", *rows, r"\hline"),
                r"\end{tabular}",
                *notes,
                r"\end{table}",
                "",
            ]
        )

    def _lines(self) -> list[list[str]]:
        return [self.header, *self.rows]


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown, header first; numbers stand on the right."""
    lines = [[_PIPE.sub(r"\1\1\|", cell) for cell in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    right = right_aligned(lines)
    rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
    padded = [
        [
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(line, widths, right, strict=True)
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def markdown(text: str) -> str:
    """One line of plain words: what is HTML, a link or a picture in it is shown, not followed."""
    shown = _HTML.sub(lambda sign: "&lt;" if sign[0] == "<" else "&amp;", one_line(text))
    return _LINK.sub(r"]\\", shown)


def csv_cell(text: str) -> str:
    """The text, which no spreadsheet takes for a formula: those stand behind an apostrophe."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and not _SIGNED.fullmatch(text) else text


def right_aligned(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Of each column, whether all that stands below its header are numbers."""
    columns = zip(*lines[1:], strict=True) if len(lines) > 1 else ([] for _ in lines[0])
    return [bool(c) and all(_NUMBER.match(cell) for cell in c) for c in columns]


def one_line(text: str) -> str:
    """Without line ends, and without what moves a terminal's cursor or turns its text around."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _row(cells: str) -> str:
    """A line of a tabular; a bracket or star in front would be an argument of the line before."""
    return f"{'{}' if cells.startswith(('[', '*')) else ''}{cells} \\\\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))
