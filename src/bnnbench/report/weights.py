"""Distributions of latent weights: Figs. 3, 4 and 5 of BONN (arXiv 1908.06314), for any method.

Drawn from the `statistics` of results, of the first seed of each row; rows without them (full
precision, old results) are left out.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnnbench.plots import STYLE, row_colours, save
from bnnbench.report.figures import row_name
from bnnbench.report.rows import Result, Row, group_cells, lookup, option_keys

MOST_ROWS = 8  # lines of panels in one figure
_PANEL = (2.1, 1.6)  # width and height of one panel, inches
_LAYER_PANEL = (3.3, 2.4)
_FILL, _FIT = "#9db8d6", "#b03a2e"
_POINTS = 241  # that a fitted curve is drawn with
Statistics = dict[str, Any]
Drawn = list[tuple[str, Statistics]]  # label and statistics of each row


def kernels(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Fig. 3: the first binarized layer at the start, at two moments and at the end of the run.

    One line of panels a row of the sweep. Dashed is the fitted two-mode mixture, dotted are its
    modes. Writes `<stem>.<format>`; returns whether there was anything to draw.
    """
    rows = _rows(manifest, results)
    panels = [s["layers"][0]["snapshots"] for _, s in rows]
    titles = [[f"epoch {snapshot['epoch']:.3g}" for snapshot in line] for line in panels]
    numbers = _joined([s["layers"][0]["index"] for _, s in rows])
    heading = f"Latent weights of the first binarized convolution (conv{numbers})"
    return _histograms(rows, panels, titles, heading, True, stem, formats)


def layers(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Fig. 4: the last histograms of three layers, a first, a middle and a late one.

    One line of panels a row of the sweep, each with its kurtosis; dotted are +-mean|x|. Writes
    `<stem>.<format>`; returns whether there was anything to draw.
    """
    rows = _rows(manifest, results)
    shown = [_three(statistics["layers"]) for _, statistics in rows]
    panels = [[layer["snapshots"][-1] for layer in line] for line in shown]
    titles = [
        [
            f"conv{layer['index']}   kurtosis {layer['snapshots'][-1]['kurtosis']:.3g}"
            for layer in line
        ]
        for line in shown
    ]
    heading = "Latent weights at the end of training"
    return _histograms(rows, panels, titles, heading, False, stem, formats)


def binarized(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Fig. 5: mean magnitude of the quantized (solid) and the latent weight (dashed) per epoch.

    One panel a layer, one colour a row. Writes `<stem>.<format>`; returns whether there was
    anything to draw.
    """
    rows = _rows(manifest, results)
    if not rows:
        return False
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    count = max(len(statistics["layers"]) for _, statistics in rows)
    columns = min(count, 2)
    lines = math.ceil(count / columns)
    with rc_context(STYLE):
        words = sum(_wrapped(label, 28).count("\n") + 1 for label, _ in rows)  # the legend's
        size = (columns * _LAYER_PANEL[0] + 2, max(lines * _LAYER_PANEL[1], 0.2 * words + 0.8))
        figure = Figure(size, layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for position, panel in enumerate(axes):
            _draw_values(panel, rows, position)
        _values_legend(figure, rows)
        save(figure, stem, formats)
    return True


def mixture(x: float, mean: float, spread: float) -> float:
    """Density at x of the two-mode mixture N(mean, spread)/2 + N(-mean, spread)/2 (Eq. 6)."""
    parts = (math.exp(-((abs(x) - mode) ** 2) / (2 * spread**2)) for mode in (mean, -mean))
    return sum(parts) / (2 * spread * math.sqrt(2 * math.pi))


def density(snapshot: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Heights and edges of a histogram whose area is one."""
    counts, limit = snapshot["counts"], snapshot["range"]
    width = 2 * limit / len(counts)
    edges = [-limit + i * width for i in range(len(counts) + 1)]
    total = sum(counts) or 1
    return [count / (total * width) for count in counts], edges


def _rows(manifest: dict[str, Any], results: dict[str, Result]) -> Drawn:
    """Label and statistics of the rows that have any; seeds that differ are one row."""
    keys, rows = option_keys(manifest), []
    for row in group_cells(manifest, results, {}):
        measured = (r for r in row.results if _complete(r))
        result = next(measured, None)
        if result is not None:
            rows.append((_label(row, result, keys), result["statistics"]))
    return rows


def _complete(result: Result) -> bool:
    recorded = lookup(result, "statistics", "layers") or []
    return bool(recorded) and all(layer["snapshots"] for layer in recorded)


def _label(row: Row, result: Result, keys: list[str]) -> str:
    """The row's name, and the weights of a loss that has both, which decide the shape."""
    name = row_name(row, keys)
    symbols = {"lambda": "λ", "nu": "\N{GREEK SMALL LETTER NU}"}
    loss = lookup(result, "config", "loss") or {}
    if not symbols.keys() <= loss.keys():
        return name
    told = [f"{symbols[k]}={loss[k]:g}" for k in symbols if f"loss.{k}" not in keys]
    return "\n".join(filter(None, [name, ", ".join(told)]))


def _three(recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, a middle and a late layer: the second of four is the first one's neighbour."""
    return recorded[:1] + recorded[2:] if len(recorded) > 3 else recorded


def _wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in label.splitlines())


def _joined(values: Sequence[Any]) -> str:
    return "/".join(dict.fromkeys(str(value) for value in values))


def _histograms(
    rows: Drawn,
    panels: list[list[dict[str, Any]]],
    titles: list[list[str]],
    heading: str,
    fit: bool,
    stem: Path,
    formats: Sequence[str],
) -> bool:
    """A line of panels a row: snapshots under their titles."""
    if not rows:
        return False
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = min(len(rows), MOST_ROWS)
    columns = max(len(line) for line in panels[:shown])
    with rc_context(STYLE | {"axes.grid": False, "axes.spines.left": False}):
        size = (columns * _PANEL[0] + 0.5, shown * _PANEL[1] + 0.7)
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(shown, columns, squeeze=False)
        for line, (label, _), drawn, names in zip(axes, rows, panels, titles, strict=False):
            _draw_line(line, label, drawn, names, fit)
        figure.suptitle(heading, fontsize=10)
        _fit_legend(figure, fit, left_out=len(rows) - shown)
        save(figure, stem, formats)
    return True


def _draw_line(
    axes: Any, label: str, drawn: list[dict[str, Any]], titles: list[str], fit: bool
) -> None:
    for panel in axes[len(drawn) :]:  # a shorter run has fewer moments
        panel.set_visible(False)
    for panel, snapshot, title in zip(axes, drawn, titles, strict=False):
        _draw_histogram(panel, snapshot, fit)
        panel.set_title(title, fontsize=8)
    axes[0].set_ylabel(_wrapped(label, 24), fontsize=7.5, fontweight="bold")


def _draw_histogram(panel: Any, snapshot: dict[str, Any], fit: bool) -> None:
    mean, spread = snapshot["mean_abs"], snapshot["std_abs"]
    heights, edges = density(snapshot)
    panel.stairs(heights, edges, fill=True, color=_FILL, linewidth=0)
    top = max(heights)
    # a few outliers would leave a needle in the middle: four spreads around the modes are shown
    limit = min(snapshot["range"], mean + 4 * spread) or snapshot["range"]
    if fit and spread > 0:
        points = [limit * (2 * i / (_POINTS - 1) - 1) for i in range(_POINTS)]
        values = [mixture(x, mean, spread) for x in points]
        panel.plot(points, values, color=_FIT, linestyle="--", linewidth=1.1)
        top = min(max(top, *values), 1.5 * top)
    for mode in (-mean, mean):
        panel.axvline(mode, color="#333333", linestyle=":", linewidth=0.9)
    panel.set_xlim(-limit, limit)
    panel.set_ylim(0, 1.12 * top)
    panel.set_yticks([])
    panel.tick_params(labelsize=7)
    panel.xaxis.get_major_locator().set_params(nbins=4, symmetric=True)


def _fit_legend(figure: Any, fit: bool, left_out: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dotted = Line2D([], [], color="#333333", linestyle=":", linewidth=0.9)
    dashed = Line2D([], [], color=_FIT, linestyle="--", linewidth=1.1)
    handles = {"density": Patch(color=_FILL), "±mean |x|" if not fit else "modes ±μ": dotted}
    if fit:
        handles["½ N(μ, s) + ½ N(\N{MINUS SIGN}μ, s)"] = dashed
    if left_out:
        rows = "1 more row is" if left_out == 1 else f"{left_out} more rows are"
        handles[f"{rows} not drawn"] = Line2D([], [], linestyle="")
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8
    )


def _draw_values(panel: Any, rows: Drawn, position: int) -> None:
    shown = [(label, s) for label, s in rows if position < len(s["layers"])]
    panel.set_visible(bool(shown))
    colours = row_colours([label for label, _ in rows])
    positive: list[float] = []
    for label, statistics in shown:
        layer, epochs = statistics["layers"][position], statistics["epochs"]
        panel.plot(epochs, layer["binarized"], color=colours[label], linewidth=1.6)
        panel.plot(epochs, layer["mean_abs"], color=colours[label], linewidth=1.0, linestyle="--")
        positive += [value for value in layer["binarized"] + layer["mean_abs"] if value > 0]
    numbers = _joined([s["layers"][position]["index"] for _, s in shown])
    panel.set_title(f"conv{numbers}", loc="left", fontweight="bold")
    panel.set_xlabel("epoch")
    panel.set_ylabel("mean magnitude")
    panel.xaxis.get_major_locator().set_params(integer=True)
    if positive and max(positive) > 30 * min(positive):  # codes of 1 beside weights of 0.01
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)


def _values_legend(figure: Any, rows: Drawn) -> None:
    from matplotlib.lines import Line2D

    colours = row_colours([label for label, _ in rows])
    lines = [
        Line2D([], [], color=colour, label=_wrapped(label, 28)) for label, colour in colours.items()
    ]
    lines += [
        Line2D([], [], color="black", linewidth=1.6, label="binarized weight"),
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="latent weight"),
    ]
    figure.legend(handles=lines, loc="outside right upper")
