"""Accuracy and loss per epoch for the rows of a sweep.

A few rows share two panels, accuracy and loss; many have a panel of accuracy each, where the others
stand in grey: twenty lines on one another tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bnnbench.plots import STYLE, literal, row_colours, save
from bnnbench.report.rows import CHOICES, Result, Row, group_cells, option_keys

_PANEL = (4.4, 3.0)  # width and height of one panel, inches
_LEGEND_LINES = 14  # that stand beside one line of panels
_TOGETHER = 8  # rows that one panel holds
_SMALL, _COLUMNS = (1.9, 1.6), 5  # width and height of a row's own panel, and panels a line
_OTHERS: dict[str, Any] = {"color": "#d0d0d0", "linewidth": 0.7, "zorder": 1, "aa": False}
_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 1.6}
_TRAIN: dict[str, Any] = {"linestyle": "--", "linewidth": 1.0, "alpha": 0.7}
_METRIC_LABELS = {"acc": "accuracy %", "map": "mAP %"}


def curves(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw the mean over seeds of every row; returns whether there was anything to draw.

    Writes `<stem>.<format>` for each of formats (png, svg).
    Test curves are solid, training curves dashed; a row keeps its colour in all panels. A sweep of
    a few rows over backbones gets a line of panels each. Rows without a history are left out.
    """
    rows = [row for row in group_cells(manifest, results, {}) if _has_history(row)]
    if not rows:
        return False
    from matplotlib import rc_context  # imported where it draws: it takes half a second
    from matplotlib.figure import Figure

    keys = option_keys(manifest)
    if len(rows) > _TOGETHER:
        with rc_context(STYLE):
            save(_multiples(rows, _short_names(rows, keys)), stem, formats)
        return True
    split = "backbone" in keys and len(keys) > 1
    facets = list(dict.fromkeys(row.choice("backbone") if split else None for row in rows))
    colours = row_colours([row_name(row, keys, split) for row in rows])
    with rc_context(STYLE):
        columns = math.ceil((len(colours) + 2) / (_LEGEND_LINES * len(facets)))
        size = (2 * _PANEL[0] + 1.5 * columns + 0.5, _PANEL[1] * len(facets))
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(len(facets), 2, squeeze=False)
        for line, facet in zip(axes, facets, strict=True):
            shown = [row for row in rows if facet in (None, row.choice("backbone"))]
            line[0].set_title(facet or "", loc="left", fontweight="bold")
            for row in shown:
                _draw(line, row, colours[row_name(row, keys, split)])
        _legend(figure, colours, sorted({_split(row) for row in rows}), columns)
        save(figure, stem, formats)
    return True


def _short_names(rows: list[Row], keys: list[str]) -> list[str]:
    """Each row's first choice, with the others in which rows of that choice differ."""
    names = []
    for row in rows:
        alike = [other for other in rows if other.text(keys[0]) == row.text(keys[0])]
        telling = [k for k in keys[1:] if len({other.text(k) for other in alike}) > 1]
        names.append(row_name(row, [keys[0], *telling]))
    return names


def _multiples(rows: list[Row], names: list[str]) -> Any:
    """A panel a row, in the order of the table, on one scale; its last value stands in it."""
    from matplotlib.figure import Figure

    lines = math.ceil(len(rows) / _COLUMNS)
    figure = Figure((_SMALL[0] * _COLUMNS, _SMALL[1] * lines + 0.4), layout="constrained")
    panels = list(figure.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    curves = [mean_curve(row.results, row.results[0].get("headline") or "test/acc") for row in rows]
    scaled = [([e for e, _ in curve], [100 * v for _, v in curve]) for curve in curves]
    for panel, row, name, own in zip(panels, rows, names, scaled, strict=False):
        for other in scaled:
            panel.plot(*other, **_OTHERS)
        metric = _metric(row)
        seen = mean_curve(row.results, f"train/{metric}")
        panel.plot([e for e, _ in seen], [100 * v for _, v in seen], color="black", **_TRAIN)
        panel.plot(*own, color="#0072b2", **_TEST)  # readable by the colour-blind
        last = f"{own[1][-1]:.1f}" if own[1] else ""
        panel.set_title(f"{name} {last}", fontsize=8, loc="left")
        panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in panels[len(rows) :]:
        panel.set_visible(False)
    words = " or ".join(sorted({_METRIC_LABELS.get(_metric(row), _metric(row)) for row in rows}))
    splits = " or ".join(sorted({_split(row) for row in rows}))
    figure.supxlabel(f"epoch; solid {splits}, dashed train, grey the other rows", fontsize=8)
    figure.supylabel(words, fontsize=8)
    return figure


def mean_curve(results: list[Result], key: str) -> list[tuple[int, float]]:
    """(epoch counted from 1, mean over the seeds that have it) of one history; [] if none has."""
    values: dict[int, list[float]] = {}
    for result in results:
        history = result.get("history") or {}
        for epoch, value in zip(history.get("epoch") or [], history.get(key) or [], strict=False):
            if value is not None and math.isfinite(value):
                values.setdefault(epoch + 1, []).append(value)
    return [(epoch, mean(seeds)) for epoch, seeds in sorted(values.items())]


def _has_history(row: Row) -> bool:
    names = {name for result in row.results for name in result.get("history") or {}}
    return any(mean_curve(row.results, name) for name in names if "/" in name)


def _draw(panels: Any, row: Row, colour: Any) -> None:
    split, metric = _split(row), _metric(row)
    for panel, name, factor in ((panels[0], metric, 100), (panels[1], "loss", 1)):
        for part, style in ((split, _TEST), ("train", _TRAIN)):
            curve = mean_curve(row.results, f"{part}/{name}")
            epochs, values = [e for e, _ in curve], [factor * v for _, v in curve]
            marker = "o" if len(curve) == 1 else None  # one epoch makes no line
            panel.plot(epochs, values, color=colour, marker=marker, ms=4, **style)
        panel.set_xlabel("epoch")
        panel.set_ylabel(_METRIC_LABELS.get(name, name))
        panel.xaxis.get_major_locator().set_params(integer=True)


def _metric(row: Row) -> str:
    return (row.results[0].get("headline") or "test/acc").split("/")[1]


def _split(row: Row) -> str:
    return (row.results[0].get("headline") or "test/acc").split("/")[0]


def row_name(row: Row, keys: list[str], split: bool = False) -> str:
    """What tells a row apart: its choices, and `name=value` for values typed inside a group.

    With split, the backbone is left out: the line of panels names it.
    """
    words = []
    for key in keys:
        if key in CHOICES:
            words.append(None if split and key == "backbone" else row.choice(key))
        elif key in row.options:
            name = f"{key.rpartition('.')[2]}=" if "." in key else ""
            words.append(f"{name}{row.text(key)}")
    return literal(" ".join(filter(None, words)))


def _legend(figure: Any, colours: dict[str, Any], evaluated: list[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    styles = ((" or ".join(evaluated), _TEST), ("train", _TRAIN))
    lines += [Line2D([], [], color="black", label=name, **style) for name, style in styles]
    figure.legend(handles=lines, loc="outside right upper", ncols=columns)
