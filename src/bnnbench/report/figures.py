"""Accuracy and loss per epoch for the rows of a sweep; what all figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bnnbench.report.rows import CHOICES, Result, Row, group_cells, option_keys

_PANEL = (4.4, 3.0)  # width and height of one panel, inches
_DPI = 110
_LEGEND_LINES = 14  # that stand beside one line of panels
_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 1.6}
_TRAIN: dict[str, Any] = {"linestyle": "--", "linewidth": 1.0, "alpha": 0.7}
_METRIC_LABELS = {"acc": "accuracy %", "map": "mAP %"}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "bnnbench",  # the same file every time
}


def curves(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw the mean over seeds of every row; returns whether there was anything to draw.

    Writes `<stem>.<format>` for each of formats (png, svg).
    Test curves are solid, training curves dashed; a row keeps its colour in all panels. A sweep
    over backbones gets a line of panels each. Rows without a history are left out.
    """
    rows = [row for row in group_cells(manifest, results, {}) if _has_history(row)]
    if not rows:
        return False
    from matplotlib import rc_context  # imported where it draws: it takes half a second
    from matplotlib.figure import Figure

    keys = option_keys(manifest)
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


def mean_curve(results: list[Result], key: str) -> list[tuple[int, float]]:
    """(epoch counted from 1, mean over the seeds that have it) of one history; [] if none has."""
    values: dict[int, list[float]] = {}
    for result in results:
        history = result.get("history") or {}
        for epoch, value in zip(history.get("epoch") or [], history.get(key) or [], strict=False):
            if value is not None and math.isfinite(value):
                values.setdefault(epoch + 1, []).append(value)
    return [(epoch, mean(seeds)) for epoch, seeds in sorted(values.items())]


def save(figure: Any, stem: Path, formats: Sequence[str]) -> None:
    """Write `<stem>.<format>`, the same bytes every time; call it within `rc_context(STYLE)`."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        if suffix == "png":
            _save_png(figure, path)
        else:
            figure.savefig(path, format=suffix, metadata={"Date": None})


def _save_png(figure: Any, path: Path) -> None:
    """A palette PNG, a third of the size of a full-colour one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    size, pixels = canvas.get_width_height(), bytes(canvas.buffer_rgba())
    image = Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _has_history(row: Row) -> bool:
    names = {name for result in row.results for name in result.get("history") or {}}
    return any(mean_curve(row.results, name) for name in names - {"epoch", "lr"})


def _draw(panels: Any, row: Row, colour: Any) -> None:
    split, metric = _split(row), (row.results[0].get("headline") or "test/acc").split("/")[1]
    for panel, name, factor in ((panels[0], metric, 100), (panels[1], "loss", 1)):
        for part, style in ((split, _TEST), ("train", _TRAIN)):
            curve = mean_curve(row.results, f"{part}/{name}")
            epochs, values = [e for e, _ in curve], [factor * v for _, v in curve]
            marker = "o" if len(curve) == 1 else None  # one epoch makes no line
            panel.plot(epochs, values, color=colour, marker=marker, ms=4, **style)
        panel.set_xlabel("epoch")
        panel.set_ylabel(_METRIC_LABELS.get(name, name))
        panel.xaxis.get_major_locator().set_params(integer=True)


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
    return " ".join(filter(None, words))


def row_colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour a name: distinct ones up to twenty names, a colour scale beyond."""
    from matplotlib import colormaps

    names = list(dict.fromkeys(names))
    if len(names) <= 20:
        palette = colormaps["tab10" if len(names) <= 10 else "tab20"].colors  # type: ignore
        return dict(zip(names, palette, strict=False))
    scale = colormaps["turbo"]
    return {name: scale(i / (len(names) - 1)) for i, name in enumerate(names)}


def _legend(figure: Any, colours: dict[str, Any], evaluated: list[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    styles = ((" or ".join(evaluated), _TEST), ("train", _TRAIN))
    lines += [Line2D([], [], color="black", label=name, **style) for name, style in styles]
    figure.legend(handles=lines, loc="outside right upper", ncols=columns)
