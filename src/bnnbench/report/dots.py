"""Dot plots: the score of each row beside the published one, and the average precision by class.

Every seed is a small dot; the large one is their mean, with their sample standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bnnbench.plots import (
    COLUMN,
    DISTINCT,
    GREY,
    SMALL,
    STYLE,
    legend_above,
    literal,
    row_colours,
    row_markers,
    save,
    wrapped,
)
from bnnbench.report.figures import METRICS, metric_of, short_names, split_of
from bnnbench.report.matching import Quoted, quoted_beside, with_published
from bnnbench.report.rows import Result, Row, group_cells, lookup, option_keys

_LINE = 0.155  # height of a row, inches
_LETTERS = 26  # of a row's name, a line
_LEGEND = 0.25  # height of a legend of one line, inches
_MEASURED, _VERIFIED, _RECALLED = "#0072b2", "#d55e00", GREY


def scores(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
    published: dict[str, Any] | None = None,
) -> bool:
    """Draw the last epoch's score of every row, over its seeds; whether there was anything.

    A published number stands beside it as a diamond, hollow where nobody has read it in a source,
    of methods that the sweep did not measure as well; one of other data, or of another metric, or
    beside a demo's budget, is not comparable and left out, which a line below the axis says.
    """
    rows = group_cells(manifest, results, {})
    if not any(row.headline("last") for row in rows):
        return False
    quoted: Quoted = {}
    omitted = ""
    if published:
        rows = with_published(rows, published, manifest)
        quoted = quoted_beside(rows, manifest, published)
        omitted = "" if quoted else "published numbers are not comparable: not drawn"
    rows = [row for row in rows if row.headline("last") or id(row) in quoted]
    from matplotlib import rc_context

    names = [wrapped(name, _LETTERS) for name in short_names(rows, option_keys(manifest))]
    with rc_context(STYLE):
        figure, panel, places = _lines(names)
        for row, y in zip(rows, places, strict=True):
            _score(panel, row.headline("last"), y)
            if id(row) in quoted:
                value, read = quoted[id(row)]
                colour = _VERIFIED if read else _RECALLED
                panel.plot(value, y, "D", color=colour, mfc=colour if read else "none", ms=3.2)
        panel.set_xlabel(_words(list(filter(_finished, rows))))
        _key(figure, quoted.values(), any(len(row.results) > 1 for row in rows), omitted)
        save(figure, stem, formats)
    return True


def classes(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw the average precision of each class, a mark a row; whether there was anything.

    The first rows alone, as many as there are marks.
    """
    rows = [row for row in group_cells(manifest, results, {}) if _by_class(row)]
    if not rows:
        return False
    from matplotlib import rc_context

    shown = rows[:DISTINCT]
    names = [wrapped(name, _LETTERS) for name in short_names(shown, option_keys(manifest))]
    colours, marks = row_colours(names), row_markers(names)
    kinds = list(dict.fromkeys(kind for row in shown for kind in _by_class(row)))
    with rc_context(STYLE):
        figure, panel, places = _lines([wrapped(literal(kind), _LETTERS) for kind in kinds])
        for row, name in zip(shown, names, strict=True):
            found = _by_class(row)
            points = [(v, y) for k, y in zip(kinds, places, strict=True) for v in found.get(k, [])]
            style = {"marker": marks[name], "mec": colours[name], "mfc": "none", "ls": "none"}
            panel.plot(*zip(*points, strict=True), label=name, ms=4, mew=1.1, alpha=0.9, **style)
        panel.set_xlabel("average precision of the class, %")
        more = len(rows) - len(shown)
        title = f"{more} more row{'s' * (more > 1)} not drawn" if more else None
        marked = panel.get_legend_handles_labels()
        legend = legend_above(figure, *marked, columns=3, title=title, title_fontsize=SMALL)
        above = legend.get_window_extent().height / figure.dpi
        figure.set_figheight(figure.get_figheight() + max(0.0, above - _LEGEND))
        save(figure, stem, formats)
    return True


def _by_class(row: Row) -> dict[str, list[float]]:
    """Percent of every seed by class."""
    found: dict[str, list[float]] = {}
    for result in row.results:
        for name, value in (lookup(result, "metrics", "last") or {}).items():
            parts = name.split("/", 2)
            if len(parts) == 3 and parts[1] == "ap" and isinstance(value, int | float):
                found.setdefault(parts[2], []).append(100 * value)
    return found


def _lines(names: Sequence[str]) -> tuple[Any, Any, list[float]]:
    """A figure with a line a name, the first on top, and the place of each."""
    from matplotlib.figure import Figure

    heights = [1 + 0.55 * name.count("\n") for name in names]
    below = [sum(heights[i:]) - heights[i] / 2 for i in range(len(names))]
    figure = Figure((COLUMN, _LINE * sum(heights) + 0.75), layout="constrained")
    panel = figure.subplots()
    panel.set_yticks(below, names, fontsize=SMALL, linespacing=0.95)
    panel.set_ylim(0, sum(heights))
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    return figure, panel, below


def _score(panel: Any, values: list[float], y: float) -> None:
    if len(values) > 1:
        panel.plot(values, [y] * len(values), "|", color=_MEASURED, ms=4, mew=0.8, alpha=0.7)
        bar = {"elinewidth": 1.0, "capsize": 2, "capthick": 1.0}
        panel.errorbar(mean(values), y, xerr=stdev(values), fmt="o", color=_MEASURED, **bar)
    elif values:
        panel.plot(values, [y], "o", color=_MEASURED)


def _finished(row: Row) -> bool:
    return bool(row.headline("last"))


def _words(rows: Sequence[Row]) -> str:
    """What was measured of which images: "test accuracy % or mAP %, last epoch"."""
    by_split: dict[str, dict[str, None]] = {}
    for row in rows:
        metric = metric_of(row)
        by_split.setdefault(split_of(row), {})[METRICS.get(metric, metric)] = None
    parts = (f"{split} {' or '.join(words)}" for split, words in by_split.items())
    return f"{' or '.join(parts)}, last epoch"


def _key(figure: Any, quoted: Any, several: bool, omitted: str) -> None:
    from matplotlib.lines import Line2D

    what = "measured, ± standard deviation over seeds" if several else "measured"
    handles = [Line2D([], [], color=_MEASURED, marker="o", linestyle="none", label=what)]
    diamond: dict[str, Any] = {"marker": "D", "linestyle": "none", "ms": 3.2}
    if any(read for _, read in quoted):
        handles.append(Line2D([], [], color=_VERIFIED, label="published", **diamond))
    if not all(read for _, read in quoted):
        label = "published, recalled, not read"
        handles.append(Line2D([], [], color=_RECALLED, mfc="none", label=label, **diamond))
    if omitted:
        handles.append(Line2D([], [], linestyle="none", label=omitted))
    figure.legend(handles=handles, loc="outside upper center", ncols=2 if len(handles) < 3 else 1)
