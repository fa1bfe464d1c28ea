"""Distributions of latent weights: Figs. 3, 4 and 5 of BONN (arXiv 1908.06314), for any method.

Drawn from the `statistics` of results, of the first seed of each row; rows without them (full
precision, old results) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnnbench.plots import COLUMN, SMALL, STYLE, End, name_lines, row_colours, save, wrapped
from bnnbench.report.figures import row_name
from bnnbench.report.rows import Result, Row, group_cells, lookup, option_keys

MOST_ROWS = 8  # lines of panels in one figure
_PANEL = 0.85  # height of one histogram, inches
_LAYER_PANEL = 1.4  # height of a layer's panel of curves
_FILL, _FIT = "#56b4e9", "#d55e00"
_LETTERS = 60  # of a row's name, a line
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
    with rc_context(STYLE):
        figure = Figure((COLUMN, count * _LAYER_PANEL + 0.3), layout="constrained")
        axes = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
        ends = [_draw_values(panel, rows, position) for position, panel in enumerate(axes)]
        figure.supxlabel("epoch (solid: binarized weight, dashed: latent weight)", fontsize=7)
        for panel, found in zip(axes, ends, strict=True):
            name_lines(panel, found)
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
    labels = [wrapped(label, _LETTERS) for label, _ in rows[:shown]]
    heights = [_PANEL + 0.1 * label.count("\n") for label in labels]
    with rc_context(STYLE | {"axes.grid": False, "axes.spines.left": False}):
        figure = Figure((COLUMN, sum(heights) + 0.5), layout="constrained")
        parts = figure.subfigures(shown, 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, label, drawn, names in zip(parts, labels, panels, titles, strict=False):
            part.suptitle(label, fontsize=SMALL, fontweight="bold", x=0.01, ha="left")
            _draw_line(part.subplots(1, columns, squeeze=False)[0], drawn, names, fit)
        figure.suptitle(heading)
        _fit_legend(figure, fit, left_out=len(rows) - shown)
        save(figure, stem, formats)
    return True


def _draw_line(axes: Any, drawn: list[dict[str, Any]], titles: list[str], fit: bool) -> None:
    for panel in axes[len(drawn) :]:  # a shorter run has fewer moments
        panel.set_visible(False)
    for panel, snapshot, title in zip(axes, drawn, titles, strict=False):
        _draw_histogram(panel, snapshot, fit)
        panel.set_title(title, fontsize=SMALL, pad=2)


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
        panel.plot(points, values, color=_FIT, linestyle=(0, (3, 1.5)), linewidth=0.8)
        top = min(max(top, *values), 1.5 * top)
    for mode in (-mean, mean):
        panel.axvline(mode, color="#333333", linestyle=":", linewidth=0.7)
    panel.set_xlim(-limit, limit)
    panel.set_ylim(0, 1.12 * top)
    panel.set_yticks([])
    panel.set_xticks([-_round(limit), 0, _round(limit)])
    panel.tick_params(labelsize=5.5, pad=1.5)
    panel.xaxis.set_major_formatter("{x:g}")


def _round(limit: float) -> float:
    """Three quarters of a limit, to one digit."""
    return float(f"{0.75 * limit:.0e}")


def _fit_legend(figure: Any, fit: bool, left_out: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dotted = Line2D([], [], color="#333333", linestyle=":", linewidth=0.7)
    dashed = Line2D([], [], color=_FIT, linestyle=(0, (3, 1.5)), linewidth=0.8)
    handles = {"density": Patch(color=_FILL), "±mean |x|" if not fit else "modes ±μ": dotted}
    if fit:
        handles["½ N(μ, s) + ½ N(\N{MINUS SIGN}μ, s)"] = dashed
    if left_out:
        rows = "1 more row is" if left_out == 1 else f"{left_out} more rows are"
        handles[f"{rows} not drawn"] = Line2D([], [], linestyle="")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)


def _draw_values(panel: Any, rows: Drawn, position: int) -> list[End]:
    """A layer's curves; returns where those of the binarized weights end."""
    shown = [(label, s) for label, s in rows if position < len(s["layers"])]
    colours = row_colours([label for label, _ in rows])
    positive: list[float] = []
    ends = []
    for label, statistics in shown:
        layer, epochs = statistics["layers"][position], statistics["epochs"]
        solid, dashed = layer["binarized"], layer["mean_abs"]
        panel.plot(epochs, solid, color=colours[label])
        panel.plot(epochs, dashed, color=colours[label], linewidth=0.8, linestyle=(0, (3, 1.5)))
        positive += [value for value in solid + dashed if value > 0]
        if epochs:
            ends.append(End(epochs[-1], solid[-1], label, colours[label]))
    numbers = _joined([s["layers"][position]["index"] for _, s in shown])
    panel.set_title(f"conv{numbers}", loc="left", fontweight="bold")
    panel.set_ylabel("mean magnitude")
    panel.xaxis.get_major_locator().set_params(integer=True)
    if positive and max(positive) > 30 * min(positive):  # codes of 1 beside weights of 0.01
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    return ends
