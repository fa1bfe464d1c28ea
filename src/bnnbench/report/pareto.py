"""Accuracy against time and size: every committed result whose network was timed or exported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from bnnbench.plots import STYLE, literal, row_colours, save
from bnnbench.report.efficiency import Bench, times_of
from bnnbench.report.rows import Result, lookup

_PANEL = (4.6, 3.4)  # width and height of one panel, inches
_MARKERS = "osD^vPX*"
_METRICS = {"acc": "accuracy %", "map": "mAP %"}


class Point(NamedTuple):
    """One setting: its results' mean score in percent, milliseconds and bytes."""

    quantizer: str
    backbone: str
    score: float
    ms: float | None
    bytes: float


def pareto(
    results: Iterable[Result], bench: Bench | None, stem: Path, formats: Sequence[str] = ("png",)
) -> bool:
    """Draw a line of two panels a data set; returns whether there was anything to draw.

    Times are those of the bench file, sizes those of packed files where a run was exported and the
    counted ones otherwise. Only full runs count, and data sets with several points of which one
    was timed.
    """
    sets = {name: points(found, bench) for name, found in by_data(results).items()}
    sets = {n: found for n, found in sets.items() if len(found) > 1 and any(p.ms for p in found)}
    if not sets:
        return False
    from matplotlib import rc_context  # imported where it draws: it takes half a second
    from matplotlib.figure import Figure

    names = sorted({point.quantizer for found in sets.values() for point in found})
    colours = row_colours(names)
    with rc_context(STYLE):
        size = (2 * _PANEL[0] + 1.8, _PANEL[1] * len(sets))
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(len(sets), 2, squeeze=False, sharey="row")
        for line, ((dataset, metric, epochs), found) in zip(axes, sets.items(), strict=True):
            of = f"{dataset}, {epochs} epoch{'s' * (epochs != 1)}"
            line[0].set_title(literal(of), loc="left", fontweight="bold")
            _draw(line[0], [p for p in found if p.ms], "ms", colours, metric)
            _draw(line[1], found, "bytes", colours, metric)
        _legend(figure, colours, sets.values())
        save(figure, stem, formats)
    return True


def by_data(results: Iterable[Result]) -> dict[tuple[str, str, int], list[Result]]:
    """Full runs by data set, metric and epochs, between which scores are not comparable."""
    found: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        headline = result.get("headline")
        if not headline or result.get("ended") or not headline.startswith("test/"):
            continue
        if lookup(result, "metrics", "last", headline) is None:
            continue
        key = result["choices"]["dataset"], headline.split("/")[1], result["epochs"]
        found.setdefault(key, []).append(result)
    return dict(sorted(found.items()))


def points(results: Iterable[Result], bench: Bench | None) -> list[Point]:
    """A point for each method, backbone, structure and way of training; seeds are averaged."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        config = {k: v for k, v in result["config"].items() if k != "seed"}
        groups.setdefault(repr(config), []).append(result)
    return [_point(group, bench) for group in groups.values()]


def _point(group: list[Result], bench: Bench | None) -> Point:
    first, times = group[0], times_of(group[0], bench)
    sizes = (lookup(first, "export", "bytes"), lookup(first, "operations", "packed_bytes"))
    choices = first["choices"]
    return Point(
        choices["quantizer"],
        choices["backbone"],
        mean(100 * result["metrics"]["last"][result["headline"]] for result in group),
        None if times is None else times.ms,
        float(next(size for size in sizes if size)),
    )


def front(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, score) pairs that none of less or equal cost and better score beats, by cost."""
    kept: list[tuple[float, float]] = []
    for cost, score in sorted(found, key=lambda pair: (pair[0], -pair[1])):
        if not kept or score > kept[-1][1]:
            kept.append((cost, score))
    return kept


def _draw(panel: Any, found: Sequence[Point], cost: str, colours: Any, metric: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    markers = dict(zip(sorted({p.backbone for p in found}), _MARKERS, strict=False))
    scale = 1.0 if cost == "ms" else 1e-6
    pairs = [(scale * getattr(point, cost), point.score) for point in found]
    best = front(pairs)
    panel.step(*zip(*best, strict=True), where="post", color="#b0b0b0", linewidth=1.0, zorder=1)
    for point, pair in zip(found, pairs, strict=True):
        panel.plot(
            *pair,
            marker=markers.get(point.backbone, "o"),
            color=colours[point.quantizer],
            markersize=6,
            linestyle="none",
            alpha=0.85,
        )
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_locator(NullLocator())
    words = "ms an image (batch 1, one thread)" if cost == "ms" else "MB (packed)"
    panel.set_xlabel(words)
    if cost == "ms":  # the other panel shares the axis
        panel.set_ylabel(_METRICS.get(metric, metric))


def _legend(figure: Any, colours: dict[str, Any], sets: Iterable[Sequence[Point]]) -> None:
    from matplotlib.lines import Line2D

    def line(label: str, **style: Any) -> Any:
        return Line2D([], [], linestyle="none", label=literal(label), **style)

    lines = [line(name, marker="o", color=colour) for name, colour in colours.items()]
    backbones = sorted({point.backbone for found in sets for point in found})
    marks = zip(backbones, _MARKERS, strict=False)
    lines += [
        line(name, marker=mark, color="black", markerfacecolor="none") for name, mark in marks
    ]
    lines.append(Line2D([], [], color="#b0b0b0", label="best at its cost"))
    figure.legend(handles=lines, loc="outside right upper", ncols=1 + (len(lines) > 16))
