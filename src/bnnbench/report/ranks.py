"""Whether an order of methods outlasts another seed: ranks of rows, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bnnbench.plots import (
    COLUMN,
    STYLE,
    End,
    literal,
    name_lines,
    row_colours,
    row_markers,
    save,
    wrapped,
)
from bnnbench.report.figures import short_names
from bnnbench.report.orders import groups
from bnnbench.report.rows import Result, Row, group_cells, option_keys
from bnnbench.report.twins import scores

_RANK = 0.17  # height of a rank, inches
Scores = dict[int, float]  # by seed


def ranks(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw the rank of every row at every seed, the best on top; whether there was anything.

    Rows are ranked against those of the same bits, bases, data, backbone and number of epochs
    alone, a panel each, over the seeds that all of them have: two at least. The title counts the
    pairs of rows whose order is the same at every seed.
    """
    rows = [row for row in group_cells(manifest, results, {}) if row.headline("last")]
    names = dict(zip(map(id, rows), short_names(rows, option_keys(manifest)), strict=True))
    alike = [(_title(group[0]), group) for group in groups(rows) if _common(group)]
    if not alike:
        return False
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        heights = [len(group) * _RANK + 0.4 for _, group in alike]
        figure = Figure((COLUMN, sum(heights) + 0.3), layout="constrained")
        ratios = {"height_ratios": heights}
        panels = figure.subplots(len(alike), 1, squeeze=False, gridspec_kw=ratios)[:, 0]
        drawn = [
            _draw(panel, [names[id(row)] for row in group], group, title)
            for panel, (title, group) in zip(panels, alike, strict=True)
        ]
        panels[-1].set_xlabel("seed")
        for panel, ends in zip(panels, drawn, strict=True):
            name_lines(panel, ends, width=24)
        save(figure, stem, formats)
    return True


def same_order(found: Sequence[Scores], seeds: Sequence[int]) -> tuple[int, int]:
    """Of pairs of rows: how many have one order at every seed, and how many pairs there are.

    Equal scores at a seed are an order of their own.
    """
    pairs = list(combinations(found, 2))
    signs = [{(a[s] > b[s]) - (a[s] < b[s]) for s in seeds} for a, b in pairs]
    return sum(len(each) == 1 for each in signs), len(pairs)


def ranked(found: Sequence[Scores], seed: int) -> list[float]:
    """The rank of each at a seed, from 1; equal ones share the mean of theirs."""
    values = [each[seed] for each in found]
    return [
        1 + sum(other > value for other in values) + (values.count(value) - 1) / 2
        for value in values
    ]


def by_seed(row: Row) -> Scores:
    """The headline of each finished seed, in percent."""
    return {seed: percent for seed, (percent, _) in scores(row).items()}


def _title(row: Row) -> str:
    """What rows that are ranked with this one share."""
    first = row.results[0]
    bits = "/".join(str((first.get("bits") or {}).get(side, "?")) for side in ("w", "a"))
    what = [row.choice("dataset"), row.choice("backbone"), f"W/A {bits}"]
    what += [f"{first.get('epochs')} epochs", str(first.get("headline"))]
    return ", ".join(map(str, what))


def _common(rows: Sequence[Row]) -> list[int]:
    """Seeds that all rows have; none where that is no two of them, or there is one row."""
    seeds = set.intersection(*(set(by_seed(row)) for row in rows))
    return sorted(seeds) if len(seeds) > 1 and len(rows) > 1 else []


def _draw(panel: Any, names: list[str], rows: Sequence[Row], title: str) -> list[End]:
    seeds, found = _common(rows), [by_seed(row) for row in rows]
    places = [ranked(found, seed) for seed in seeds]
    colours, marks = row_colours(names), row_markers(names)
    ends = []
    for name, line in zip(names, zip(*places, strict=True), strict=True):
        panel.plot(range(len(seeds)), line, color=colours[name], marker=marks[name])
        ends.append(End(len(seeds) - 1, line[-1], name, colours[name]))
    kept, pairs = same_order(found, seeds)
    told = f"{wrapped(literal(title), 52)}\n{kept} of {pairs} pairs in one order at every seed"
    panel.set_title(told, loc="left")
    panel.set_xticks(range(len(seeds)), list(map(str, seeds)))
    panel.set_yticks(range(1, len(rows) + 1))
    panel.set_ylim(len(rows) + 0.5, 0.5)
    panel.set_ylabel("rank")
    return ends
