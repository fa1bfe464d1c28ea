"""One table of texts, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

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
_NUMBER = re.compile(rf"[+-]?\d|{MISSING}$|failed$")


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
        lines = [[_one_line(cell).replace("|", r"\|") for cell in r] for r in self._lines()]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        right = self._right_aligned()
        rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
        padded = [
            [
                cell.rjust(w) if r else cell.ljust(w)
                for cell, w, r in zip(line, widths, right, strict=True)
            ]
            for line in lines
        ]
        body = "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])
        notes = "".join(f"- {_one_line(note)}\n" for note in self.notes)
        return f"# {_one_line(self.title)}\n\n{body}\n" + (f"\n{notes}" if notes else "")

    def csv(self) -> str:
        """Header and rows, without title and notes, so that any CSV reader takes it."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self._lines())
        return out.getvalue()

    def latex(self) -> str:
        """A `table` with a plain `tabular` (no package needed); notes follow in small print."""
        columns = "".join("r" if right else "l" for right in self._right_aligned())
        header, *rows = (" & ".join(map(_latex, line)) + r" \\" for line in self._lines())
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

    def _right_aligned(self) -> list[bool]:
        columns = [[row[i] for row in self.rows] for i in range(len(self.header))]
        return [bool(c) and all(_NUMBER.match(cell) for cell in c) for c in columns]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))
