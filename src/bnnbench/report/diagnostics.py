"""How methods differ while they train: what ``callbacks=diagnostics`` logs, epoch by epoch.

Flips, dead channels, entropies of signs and norms of gradients over all binarized layers of a run;
docs/diagnostics.md says what each tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.plots import (
    COLUMN,
    DISTINCT,
    PAGE,
    SMALL,
    STYLE,
    legend_above,
    literal,
    row_colours,
    save,
    wrapped,
)
from bnnbench.report.figures import mean_curve, short_names
from bnnbench.report.rows import Result, Row, group_cells, option_keys

_PANEL, _SMALL = 1.15, 0.8  # height of a panel, and of one of a method's own line, inches
_COLUMNS = 2  # panels a line of a column
_LETTERS, _LEGEND = 16, 22  # of a method's name, a line: beside its panels, in the legend
_TITLE = 17  # letters of a title, a line, where six panels share a page's width
_OTHERS: dict[str, Any] = {"color": "#d4d4d4", "linewidth": 0.5, "zorder": 1, "aa": False}
Curve = list[tuple[int, float]]


class Value(NamedTuple):
    """A logged value as a panel shows it."""

    key: str
    title: str
    factor: float = 1.0
    logarithmic: bool = False


VALUES = (
    Value("flipped", "weights flipped %", 100),
    Value("dead", "dead channels %", 100),
    Value("weight_entropy", "entropy of weights, bits"),
    Value("activation_entropy", "entropy of activations, bits"),
    Value("weight_grad_latent", "gradient at latent weights", 1, True),
    Value("activation_grad_real", "gradient before the sign", 1, True),
)


def diagnostics(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw a panel a value, a line a row of the sweep; whether there was anything to draw.

    More rows than there are colours have a line of panels each, where the others stand in grey.
    Means over seeds; rows that logged none of the values, as in full precision, are left out.
    Writes `<stem>.<format>`.
    """
    rows = [row for row in group_cells(manifest, results, {}) if any(map(len, curves_of(row)))]
    if not rows:
        return False
    from matplotlib import rc_context

    names = short_names(rows, option_keys(manifest))
    drawn = [curves_of(row) for row in rows]
    with rc_context(STYLE):
        figure = (_together if len(rows) <= DISTINCT else _apart)(names, drawn)
        figure.supxlabel("epoch", fontsize=7)
        save(figure, stem, formats)
    return True


def curves_of(row: Row) -> list[Curve]:
    """The curve of each of ``VALUES``, in its panel's unit; empty where it was not logged."""
    found = [(value, mean_curve(row.results, f"diagnostics/{value.key}")) for value in VALUES]
    return [[(epoch, value.factor * y) for epoch, y in curve] for value, curve in found]


def _together(names: Sequence[str], drawn: Sequence[list[Curve]]) -> Any:
    """All rows in each panel, their names above."""
    from matplotlib.figure import Figure

    lines = -(-len(VALUES) // _COLUMNS)
    figure = Figure((COLUMN, _PANEL * lines + 0.5), layout="constrained")
    panels = list(figure.subplots(lines, _COLUMNS, sharex=True, squeeze=False).flat)
    colours = row_colours(names)
    for name, curves in zip(names, drawn, strict=True):
        for panel, curve in zip(panels, curves, strict=True):
            _plot(panel, curve, color=colours[name], label=name)
    _dress(panels, drawn)
    words = [wrapped(literal(name), _LEGEND) for name in names]
    legend_above(figure, list(panels[0].lines), words, columns=3)
    return figure


def _apart(names: Sequence[str], drawn: Sequence[list[Curve]]) -> Any:
    """A line of panels a row, on the scale of all of them."""
    from matplotlib.figure import Figure

    figure = Figure((PAGE, _SMALL * len(names) + 0.4), layout="constrained")
    axes = figure.subplots(len(names), len(VALUES), sharex=True, sharey="col", squeeze=False)
    for line, name, curves in zip(axes, names, drawn, strict=True):
        for place, panel in enumerate(line):
            for other in drawn:
                _plot(panel, other[place], **_OTHERS)
            _plot(panel, curves[place], color=row_colours([name])[name])
        label = wrapped(literal(name), _LETTERS)
        line[0].set_ylabel(label, fontsize=SMALL, rotation=0, ha="right", va="center")
    _dress(list(axes[0]), drawn, _TITLE)
    return figure


def _plot(panel: Any, curve: Curve, **style: Any) -> None:
    marker = "o" if len(curve) == 1 else None  # one epoch makes no line
    panel.plot([x for x, _ in curve], [y for _, y in curve], marker=marker, **style)


def _dress(panels: Sequence[Any], drawn: Sequence[list[Curve]], width: int = 40) -> None:
    """Titles and scales, logarithmic where positive values span a factor of ten."""
    for place, (panel, value) in enumerate(zip(panels, VALUES, strict=True)):
        panel.set_title(wrapped(value.title, width), fontsize=SMALL, loc="left", pad=2)
        panel.xaxis.get_major_locator().set_params(integer=True, nbins=4)
        positive = [y for curves in drawn for _, y in curves[place] if y > 0]
        if value.logarithmic and positive and max(positive) > 10 * min(positive):
            panel.set_yscale("log")
        elif value.factor == 100:
            panel.set_ylim(bottom=0, top=None if positive else 1)  # a share; of 0 alone to 1 %
