"""The picture of a table at the top of the README: `python docs/build/picture.py`.

Every number is read from a committed table, results/tables/<NAME>.csv, and drawn as it stands
there; a bar beside each accuracy shows it from 0 to 100 %. The file says which rows it was drawn
from, so that a test sees when it is stale.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
NAME = "unified_cifar10_quick"
TITLE = "CIFAR-10, ResNet-20, one recipe and one structure for every method, 16 epochs"
ACCURACY = "accuracy % (last epoch)"
NOT_RUN = "\u2013"  # a dash
OLD = "*"  # behind an accuracy, as in the table
NOTE = f"{OLD} older than the code of its method as it is now"
OPTION = "t_min"  # tells the two rows of one method apart
# Column of the file: its place in the picture from 0 to 1, and how it is aligned there.
COLUMNS = {
    "quantizer": (0.01, "left"),
    "W/A bits": (0.22, "right"),
    ACCURACY: (0.6, "right"),
    "OPs": (0.73, "right"),
    "packed MB": (0.86, "right"),
    "train s": (0.99, "right"),
}
BAR = (0.27, 0.535)  # from 0 % to 100 %
TABLE = ROOT / "results" / "tables" / f"{NAME}.csv"
PICTURE = ROOT / "docs" / "table.png"
BINARY, FULL = "#56b4e9", "#e69f00"  # of Okabe and Ito's palette, told apart by colour-blind people


def measured(path: Path) -> list[dict[str, str]]:
    """The rows of a rendered table that were run, in its order, with names that tell them apart."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[ACCURACY] != NOT_RUN]
    names = [row["quantizer"] for row in rows]
    for name, row in zip(names, rows, strict=True):
        if names.count(name) > 1:
            row["quantizer"] = f"{name}, {OPTION}={row[f'quantizer.{OPTION}']}"
    return rows


def digest(rows: list[dict[str, str]]) -> str:
    """SHA-256 of what the picture shows of `rows`."""
    shown = [[row[name] for name in COLUMNS] for row in rows]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Write the picture of `rows` to `path`."""
    with rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        noted = any(row[ACCURACY].endswith(OLD) for row in rows)
        lines = len(rows) + noted
        figure = Figure((8.3, 0.205 * (lines + 2.1)))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(lines + 0.3, -1.8))
        axes.axis("off")
        axes.text(0.01, -1.35, TITLE, fontweight="bold", va="center")
        for name, (x, side) in COLUMNS.items():
            axes.text(x, -0.35, name, ha=side, va="center", color="#555555")
        axes.axhline(0.15, color="#555555", linewidth=0.8)
        for line, row in enumerate(rows):
            _draw_row(axes, line + 0.65, row)
        if noted:
            axes.text(0.01, len(rows) + 0.65, NOTE, va="center", color="#555555")
        told = {"Software": None, "Comment": digest(rows)}
        figure.savefig(path, dpi=120, metadata=told, pil_kwargs={"optimize": True})


def _draw_row(axes: Axes, y: float, row: dict[str, str]) -> None:
    start, end = BAR
    colour = BINARY if row["W/A bits"] == "1/1" else FULL
    axes.barh(y, end - start, 0.62, start, color="#f2f2f2")
    axes.barh(y, (end - start) * float(row[ACCURACY].rstrip(OLD)) / 100, 0.62, start, color=colour)
    for name, (x, side) in COLUMNS.items():
        axes.text(x, y, row[name], ha=side, va="center")


if __name__ == "__main__":
    draw(measured(TABLE), PICTURE)
