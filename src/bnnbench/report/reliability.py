"""Whether confidence is earned: the accuracy of each bin of confidence, a panel a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bnnbench.plots import GREY, PAGE, SMALL, STYLE, literal, row_colours, save, wrapped
from bnnbench.report.figures import short_names
from bnnbench.report.rows import Result, Row, group_cells, option_keys

_PANELS = 5  # a line
_HEIGHT = 1.5  # of a line of panels, inches
_BAR = 0.05  # width of a bar; a bin is a fifteenth
_LETTERS = 14  # of a row's name, a line
Bin = tuple[int, float, float]  # images, mean confidence, accuracy


def reliability(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw each row's reliability diagram, as in arXiv 1706.04599; whether there was anything.

    A bar is the accuracy of the images of a bin of confidence, and what lies between it and the
    diagonal is what a network is too sure (below) or not sure enough (above); bars are as dark as
    their share of the images. The bins of a row's seeds are added up, their errors averaged. Rows
    whose results have no bins, of detectors and of old results, are left out.
    """
    rows = [row for row in group_cells(manifest, results, {}) if bins_of(row)]
    if not rows:
        return False
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = short_names(rows, option_keys(manifest))
    columns = min(_PANELS, len(rows))
    lines = -(-len(rows) // columns)
    with rc_context(STYLE):
        figure = Figure((PAGE * columns / _PANELS, _HEIGHT * lines + 0.2), layout="constrained")
        panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
        for panel, row, name in zip(panels, rows, names, strict=False):
            _diagram(panel, bins_of(row), mean(errors_of(row)), row_colours([name])[name])
            panel.set_title(wrapped(literal(name), _LETTERS), fontsize=SMALL, loc="left", pad=2)
        for panel in panels[len(rows) :]:
            panel.set_axis_off()
        figure.supxlabel("confidence", fontsize=7)
        figure.supylabel("accuracy", fontsize=7)
        save(figure, stem, formats)
    return True


def bins_of(row: Row) -> list[Bin]:
    """The bins of a row that hold images, over all its seeds."""
    bins = []
    for places in zip(*_of_runs(row), strict=True):
        images = sum(count for count, _, _ in places)
        if images:
            sums = (sum(n * value[k] for n, *value in places) / images for k in (0, 1))
            bins.append((images, *sums))
    return bins


def errors_of(row: Row) -> list[float]:
    """The expected calibration error of each seed: of bins added up, errors could cancel out."""
    return [expected_error(bins) for bins in _of_runs(row)]


def expected_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error of bins, a share of 1 (arXiv 1706.04599, equation 3)."""
    images = sum(count for count, _, _ in bins)
    return sum(n * abs(right - sure) for n, sure, right in bins) / images


def _of_runs(row: Row) -> list[list[Bin]]:
    return [_of_a_run(found) for r in row.results if (found := r.get("reliability"))]


def _of_a_run(found: dict[str, list[Any]]) -> list[Bin]:
    columns = (found[key] for key in ("images", "confidence", "accuracy"))
    return [(int(n), sure or 0.0, right or 0.0) for n, sure, right in zip(*columns, strict=True)]


def _diagram(panel: Any, bins: Sequence[Bin], error: float, colour: Any) -> None:
    most = max(images for images, _, _ in bins)
    for images, sure, right in bins:
        panel.bar(sure, right, _BAR, color=colour, alpha=0.25 + 0.75 * images / most, lw=0)
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle="--")
    panel.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    words = f"ECE {100 * error:.1f} %"
    panel.set_title(words, fontsize=SMALL, loc="right", pad=2)
