"""Accuracy and loss per epoch for the rows of a sweep.

A few rows share two panels, accuracy and loss, with a name at each line's end; many have a panel
of accuracy each, where the others stand in grey: twenty lines on one another tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bnnbench.plots import (
    COLUMN,
    DISTINCT,
    PAGE,
    SMALL,
    STYLE,
    End,
    literal,
    name_lines,
    row_colours,
    save,
    wrapped,
)
from bnnbench.report.matching import Quoted, quoted_beside, with_published
from bnnbench.report.rows import (
    CHOICES,
    METRIC_NAMES,
    Result,
    Row,
    dataset_of,
    group_cells,
    option_keys,
)

_PANEL = 1.5  # height of one panel, inches
_SMALL, _COLUMNS = 0.95, 3  # height of a row's own panel, and panels a line of a paper's column
_FITS = 12  # panels that a column holds; more take the page's width
_TITLE = 20  # letters of a small panel's width
_OTHERS: dict[str, Any] = {"color": "#d4d4d4", "linewidth": 0.5, "zorder": 1, "aa": False}
_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 1.2}
_TRAIN: dict[str, Any] = {"linestyle": (0, (3, 1.5)), "linewidth": 0.7, "alpha": 0.75}
_PUBLISHED: dict[str, Any] = {"linestyle": ":", "linewidth": 0.8, "zorder": 1.5}
METRICS = {metric: f"{name} %" for metric, name in METRIC_NAMES.items()}


def curves(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
    published: dict[str, Any] | None = None,
) -> bool:
    """Draw the mean over seeds of every row; returns whether there was anything to draw.

    Writes `<stem>.<format>` for each of formats. Test curves are solid, training curves dashed; a
    row keeps its colour in all panels. A sweep of a few rows over backbones gets a line of panels
    each. Rows without a history are left out. A published number that is comparable with its row
    is a dotted line, with a dagger where nobody has read it in a source.
    """
    rows = [row for row in group_cells(manifest, results, {}) if _has_history(row)]
    if not rows:
        return False
    quoted: Quoted = {}
    if published:
        with_published(rows, published, manifest)
        quoted = quoted_beside(rows, manifest, published)
    from matplotlib import rc_context  # imported where it draws: it takes half a second

    keys = option_keys(manifest)
    with rc_context(STYLE):
        if len(rows) > DISTINCT:
            figure = _multiples(rows, short_names(rows, keys), quoted)
        else:
            figure = _together(rows, keys, quoted)
        save(figure, stem, formats)
    return True


def _together(rows: list[Row], keys: list[str], quoted: Quoted) -> Any:
    """Accuracy above loss in a column; with several backbones, a line of both for each."""
    from matplotlib.figure import Figure

    split = "backbone" in keys and len(keys) > 1
    facets = list(dict.fromkeys(row.choice("backbone") if split else None for row in rows))
    named_by = [key for key in keys if not split or key != "backbone"]
    names = dict(zip(map(id, rows), short_names(rows, named_by), strict=True))
    colours = row_colours(list(names.values()))
    one = len(facets) == 1
    width, height = (COLUMN, 2 * _PANEL) if one else (PAGE, _PANEL * len(facets))
    figure = Figure((width, height + 0.3), layout="constrained")
    shape = (2, 1) if one else (len(facets), 2)
    axes = figure.subplots(*shape, squeeze=False, sharex=one)
    lines = [axes[:, 0]] if one else list(axes)
    named: list[tuple[Any, list[End | None]]] = []
    for line, facet in zip(lines, facets, strict=True):
        line[0].set_title(literal(facet or ""), loc="left", fontweight="bold")
        shown = [row for row in rows if facet in (None, row.choice("backbone"))]
        ends = [_draw(line, row, names[id(row)], colours) for row in shown]
        for row in shown:
            _quote(line[0], quoted.get(id(row)), colours[names[id(row)]], "published ")
        named += [(panel, [e[i] for e in ends]) for i, panel in enumerate(line)]
    figure.supxlabel(_legend(rows, quoted), fontsize=7)
    for panel, ends in named:
        name_lines(panel, [end for end in ends if end is not None])
    return figure


def _legend(rows: list[Row], quoted: Quoted, *more: str) -> str:
    """What the lines of the panels are: "epoch (solid: test, dashed: train)"."""
    splits = " or ".join(sorted({split_of(row) for row in rows}))
    dotted = ["dotted: published"] if quoted else []
    return f"epoch ({', '.join([f'solid: {splits}', 'dashed: train', *dotted, *more])})"


def _quote(panel: Any, quoted: tuple[float, bool] | None, colour: Any, word: str) -> None:
    """A published number as a line over all epochs, its value at the line's left end."""
    if quoted is None:
        return
    value, read = quoted
    panel.axhline(value, color=colour, **_PUBLISHED)
    words, place = f"{word}{value:g}{'' if read else '†'}", panel.get_yaxis_transform()
    panel.text(0.01, value, words, transform=place, va="bottom", fontsize=SMALL, color=colour)


def _draw(panels: Any, row: Row, name: str, colours: dict[str, Any]) -> list[End | None]:
    """Both panels of a row; returns where its test curves end, None where it has none."""
    split, metric, colour = split_of(row), metric_of(row), colours[name]
    ends: list[End | None] = []
    for panel, word, factor in ((panels[0], metric, 100), (panels[1], "loss", 1)):
        drawn = [
            (_scaled(mean_curve(row.results, f"{part}/{word}"), factor), style)
            for part, style in ((split, _TEST), ("train", _TRAIN))
        ]
        for (epochs, values), style in drawn:
            marker = "o" if len(epochs) == 1 else None  # one epoch makes no line
            panel.plot(epochs, values, color=colour, marker=marker, **style)
        last = next(((e[-1], v[-1]) for (e, v), _ in drawn if e), None)
        ends.append(last and End(*last, name, colour))
        panel.set_ylabel(METRICS.get(word, word))
        panel.xaxis.get_major_locator().set_params(integer=True)
    return ends


def short_names(rows: list[Row], keys: list[str]) -> list[str]:
    """Each row's first choice, its data set where there are several, and what tells it apart."""
    sets = [key for key in keys[1:] if key == "dataset" and _different(rows, [key]) > 1]
    alike: dict[str | None, list[Row]] = {}
    for row in rows:
        alike.setdefault(row.text(keys[0]), []).append(row)
    telling = {first: _telling(group, keys[1:], sets) for first, group in alike.items()}
    return [row_name(row, [keys[0], *telling[row.text(keys[0])]]) for row in rows]


def _telling(rows: list[Row], keys: list[str], always: list[str]) -> list[str]:
    """Those options of which each tells rows apart that the ones before it do not."""
    found = [*always]
    for key in keys:
        if _different(rows, [*found, key]) > _different(rows, found):
            found.append(key)
    return found


def _different(rows: list[Row], keys: list[str]) -> int:
    return len({tuple(row.text(key) for key in keys) for row in rows})


def _multiples(rows: list[Row], names: list[str], quoted: Quoted) -> Any:
    """A panel a row, in the order of the table, on one scale; its last value stands in it."""
    from matplotlib.figure import Figure

    wide = len(rows) > _FITS
    columns = 2 * _COLUMNS if wide else _COLUMNS
    lines = math.ceil(len(rows) / columns)
    broken = max(wrapped(f"{name} 99.9", _TITLE).count("\n") for name in names)
    size = (PAGE if wide else COLUMN, (_SMALL + 0.09 * broken) * lines + 0.35)
    figure = Figure(size, layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    tests = [mean_curve(row.results, row.results[0].get("headline") or "test/acc") for row in rows]
    scaled = [_scaled(curve, 100) for curve in tests]
    for panel, row, name, own in zip(panels, rows, names, scaled, strict=False):
        for other in scaled:
            panel.plot(*other, **_OTHERS)
        seen = _scaled(mean_curve(row.results, f"train/{metric_of(row)}"), 100)
        panel.plot(*seen, color="black", **_TRAIN)
        panel.plot(*own, color=row_colours([name])[name], **_TEST)
        _quote(panel, quoted.get(id(row)), "black", "")
        last = f"{own[1][-1]:.1f}" if own[1] else ""
        panel.set_title(wrapped(f"{name} {last}", _TITLE), fontsize=SMALL, loc="left", pad=2)
        panel.xaxis.get_major_locator().set_params(integer=True, nbins=3)
    for number, panel in enumerate(panels):
        panel.set_visible(number < len(rows))
        if len(rows) - columns <= number < len(rows):  # the last of its column
            panel.tick_params(labelbottom=True)
    words = " or ".join(sorted({METRICS.get(metric_of(row), metric_of(row)) for row in rows}))
    figure.supxlabel(_legend(rows, quoted, "grey: the other rows"), fontsize=7)
    figure.supylabel(words, fontsize=7)
    return figure


def _scaled(curve: list[tuple[int, float]], factor: float) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in curve], [factor * value for _, value in curve]


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


def metric_of(row: Row) -> str:
    """The metric of a measured row's headline, such as "acc"."""
    return (row.results[0].get("headline") or "test/acc").split("/")[1]


def split_of(row: Row) -> str:
    """The part of the data that it is of, such as "test"."""
    return (row.results[0].get("headline") or "test/acc").split("/")[0]


def row_name(row: Row, keys: list[str]) -> str:
    """What tells a row apart: its choices, and `name=value` for values typed inside a group."""
    words = []
    for key in keys:
        if key in CHOICES:
            words.append(dataset_of(row) if key == "dataset" else row.choice(key))
        elif key in row.options:
            name = f"{key.rpartition('.')[2]}=" if "." in key else ""
            words.append(f"{name}{row.text(key)}")
    return literal(" ".join(filter(None, words)))
