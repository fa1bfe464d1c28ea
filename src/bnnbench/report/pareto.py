"""Accuracy against what it costs: operations, bytes, milliseconds, and what nothing cheaper beats.

Of a sweep's rows, or of every committed result whose network was timed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from bnnbench.plots import (
    COLUMN,
    GREY,
    MARKERS,
    STYLE,
    End,
    legend_above,
    literal,
    name_points,
    save,
)
from bnnbench.report.efficiency import Bench, times_of
from bnnbench.report.figures import METRICS, short_names
from bnnbench.report.rows import (
    Result,
    Row,
    dataset_of,
    group_cells,
    lookup,
    option_keys,
    seedless,
)

_PANEL = 1.9  # height of one panel, inches
_BEST = "#0072b2"
COSTS = {
    "ops": "operations (OPs)",
    "bytes": "MB (packed)",
    "ms": "ms an image (batch 1, one thread)",
}


class Point(NamedTuple):
    """One setting: its results' mean score in percent, milliseconds, bytes and operations."""

    name: str
    backbone: str
    score: float
    ms: float | None
    bytes: float | None
    ops: float | None = None


class Panel(NamedTuple):
    """What one panel shows."""

    title: str
    metric: str
    cost: str
    points: list[Point]


def pareto(
    results: Iterable[Result], bench: Bench | None, stem: Path, formats: Sequence[str] = ("png",)
) -> bool:
    """Draw two panels a data set, times and bytes; returns whether there was anything to draw.

    Times are those of the bench file, sizes those of packed files where all runs of a panel were
    exported and the counted ones otherwise. Only full runs count, and data sets with several points
    of which one was timed: of each the longest trainings, of those with several timed points where
    there are any.
    """
    longest: dict[tuple[str, str], tuple[bool, list[Panel]]] = {}
    for (dataset, metric, epochs), group in by_data(results).items():
        found = points(group, bench)
        timed = sum(point.ms is not None for point in found)
        several, _ = longest.get((dataset, metric), (False, []))
        if len(found) > 1 and timed > several:
            title = f"{dataset}, {epochs} epoch{'s' * (epochs != 1)}"
            panels = [Panel(title, metric, cost, found) for cost in ("ms", "bytes")]
            longest[dataset, metric] = timed > 1, panels
    return _drawn([panel for _, panels in longest.values() for panel in panels], stem, formats)


def pareto_of_sweep(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
    bench: Bench | None = None,
) -> bool:
    """Draw a panel a cost that is known of several rows; whether there was anything to draw.

    Rows of different data, metrics or numbers of epochs stand in panels of their own.
    """
    rows = [row for row in group_cells(manifest, results, {}) if row.headline("last")]
    names = short_names(rows, option_keys(manifest))
    groups: dict[tuple[str, str, Any], list[tuple[Row, str]]] = {}
    for row, name in zip(rows, names, strict=True):
        first = row.results[0]
        key = dataset_of(row), str(first["headline"]), first.get("epochs")
        groups.setdefault(key, []).append((row, name))
    panels = []
    for (dataset, headline, epochs), named in groups.items():
        files = _exported(row.results[0] for row, _ in named)
        found = [_point(row.results, bench, files)._replace(name=name) for row, name in named]
        split, metric = headline.split("/", 1)
        title = f"{dataset}, {split}, {epochs} epoch{'s' * (epochs != 1)}"
        panels += [Panel(title, metric, cost, found) for cost in COSTS]
    return _drawn(panels, stem, formats)


def by_data(results: Iterable[Result]) -> dict[tuple[str, str, int], list[Result]]:
    """Full runs by data set, metric and epochs, in order; scores of two of them do not compare."""
    found: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        headline = result.get("headline")
        if not headline or result.get("ended") or not headline.startswith("test/"):
            continue
        if lookup(result, "metrics", "last", headline) is None:
            continue
        dataset = lookup(result, "config", "dataset", "name") or result["choices"]["dataset"]
        key = dataset, headline.split("/")[1], result["epochs"]
        found.setdefault(key, []).append(result)
    return dict(sorted(found.items()))


def points(results: Iterable[Result], bench: Bench | None) -> list[Point]:
    """A point for each method, backbone, structure and way of training; seeds are averaged.

    Sizes are those of packed files if all of them were exported, else of all the counted ones.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        config = seedless(result["config"])
        groups.setdefault(repr(config), []).append(result)
    files = _exported(group[0] for group in groups.values())
    return [_point(group, bench, files) for group in groups.values()]


def _exported(results: Iterable[Result]) -> bool:
    return all(lookup(result, "export", "bytes") for result in results)


def _point(group: list[Result], bench: Bench | None, files: bool) -> Point:
    first, times = group[0], times_of(group[0], bench)
    size = lookup(first, *(("export", "bytes") if files else ("operations", "packed_bytes")))
    choices, ops = first["choices"], lookup(first, "operations", "ops")
    scores = [lookup(result, "metrics", "last", result["headline"]) for result in group]
    return Point(
        choices["quantizer"],
        choices["backbone"],
        mean(100 * score for score in scores if score is not None),
        None if times is None else times.ms,
        None if size is None else float(size),
        None if ops is None else float(ops),
    )


def front(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, score) pairs that none of less or equal cost and better score beats, by cost."""
    kept: list[tuple[float, float]] = []
    for cost, score in sorted(found, key=lambda pair: (pair[0], -pair[1])):
        if not kept or score > kept[-1][1]:
            kept.append((cost, score))
    return kept


def _drawn(panels: Sequence[Panel], stem: Path, formats: Sequence[str]) -> bool:
    """Write panels, one below the other; those without two points are left out."""
    panels = [
        panel._replace(points=known)
        for panel in panels
        if len(known := [p for p in panel.points if getattr(p, panel.cost)]) > 1
    ]
    if not panels:
        return False
    from matplotlib import rc_context  # imported where it draws: it takes half a second
    from matplotlib.figure import Figure

    backbones = sorted({point.backbone for panel in panels for point in panel.points})
    marks = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(backbones)}
    with rc_context(STYLE):
        figure = Figure((COLUMN, _PANEL * len(panels) + 0.3), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        ends = [_draw(axis, panel, marks) for axis, panel in zip(axes, panels, strict=True)]
        _legend(figure, marks if len(marks) > 1 else {})
        for axis, found in zip(axes, ends, strict=True):
            name_points(axis, found)
        save(figure, stem, formats)
    return True


def _draw(axis: Any, panel: Panel, marks: dict[str, str]) -> list[End]:
    """One panel; returns its points with their names, those of the front first."""
    scale = 1e-6 if panel.cost == "bytes" else 1.0
    pairs = [(scale * getattr(point, panel.cost), point.score) for point in panel.points]
    best = front(pairs)
    axis.step(*zip(*best, strict=True), where="post", color=_BEST, linewidth=0.8, alpha=0.5)
    ends = []
    for point, pair in zip(panel.points, pairs, strict=True):
        colour = _BEST if pair in best else GREY
        axis.plot(*pair, marks[point.backbone], color=colour, zorder=3 if pair in best else 2)
        ends.append(End(*pair, literal(point.name), colour))
    axis.set_title(literal(panel.title), loc="left")
    axis.set_xlabel(COSTS[panel.cost])
    axis.set_ylabel(METRICS.get(panel.metric, panel.metric))
    axis.margins(x=0.12, y=0.12)
    _logarithmic(axis, [cost for cost, _ in pairs])
    return sorted(ends, key=lambda end: (end.colour != _BEST, -end.y))


def _logarithmic(axis: Any, costs: Sequence[float]) -> None:
    """A logarithmic axis where costs span more than a factor of three, with plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if max(costs) <= 3 * min(costs):
        axis.xaxis.set_major_locator(MaxNLocator(5))
        return
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    if max(costs) < 1e4:
        steps = (1, 2, 5) if max(costs) < 100 * min(costs) else (1,)
        axis.xaxis.set_major_locator(LogLocator(subs=steps))
        axis.xaxis.set_major_formatter("{x:g}")


def _legend(figure: Any, marks: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_BEST, linewidth=0.8, label="best at its cost")]
    handles += [
        Line2D(
            [], [], linestyle="none", marker=mark, color="black", mfc="none", label=literal(name)
        )
        for name, mark in marks.items()
    ]
    legend_above(figure, handles, [str(handle.get_label()) for handle in handles], columns=4)
