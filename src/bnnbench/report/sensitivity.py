"""How far a method's score depends on the recipe: its spread over settings, and a heat map.

Settings are what the keys `recipe.*` of a sweep say, methods all else that tells its rows apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from bnnbench.plots import COLUMN, PAGE, SMALL, STYLE, literal, save, wrapped
from bnnbench.report.figures import METRICS, metric_of, row_name, split_of
from bnnbench.report.markup import MISSING, Table
from bnnbench.report.rows import (
    METRIC_NAMES,
    OF_SETTINGS,
    Result,
    Row,
    group_cells,
    option_keys,
    settings_of,
)

_LINE, _CELL = 0.19, 0.42  # height of a method's line and width of a setting's column, inches
_LETTERS = 26  # of a method's name, a line
Cells = Mapping[tuple[str, str], float]  # mean score in percent, by method and setting


class Grid(NamedTuple):
    """Methods and settings in the order of the sweep, and the scores that are known."""

    methods: list[str]
    settings: list[str]
    scores: Cells

    def of(self, method: str) -> dict[str, float]:
        """A method's known scores by setting."""
        known = ((setting, self.scores.get((method, setting))) for setting in self.settings)
        return {setting: score for setting, score in known if score is not None}


def grid_of(manifest: dict[str, Any], rows: Sequence[Row]) -> Grid | None:
    """The scores of a sweep by method and setting; None where it has no two settings."""
    others = [key for key in option_keys(manifest) if not key.startswith(OF_SETTINGS)]
    methods = [row_name(row, others or ["quantizer"]) for row in rows]
    named = list(zip(rows, methods, settings_of(rows, option_keys(manifest)), strict=True))
    settings = list(dict.fromkeys(setting for _, _, setting in named))
    if len(settings) < 2:
        return None
    known = {(m, s): mean(row.headline("last")) for row, m, s in named if row.headline("last")}
    return Grid(list(dict.fromkeys(m for _, m, _ in named)), settings, known)


def spread_table(manifest: dict[str, Any], rows: Sequence[Row], title: str) -> Table | None:
    """A row a method: its best and its worst setting and the spread of all; None without a grid."""
    grid = grid_of(manifest, rows)
    if grid is None or not grid.scores:
        return None
    metric = METRIC_NAMES.get(_headlined(rows).split("/")[1], "score")
    header = ["method", "settings", f"best {metric} %", "best setting"]
    header += [f"worst {metric} %", "worst setting", "range", "standard deviation"]
    lines = [_line(method, grid) for method in grid.methods]
    notes = [
        "of the last epoch, means over seeds; range: best minus worst in points; standard "
        "deviation: of the sample of settings",
        f"settings: {', '.join(grid.settings)}",
    ]
    if any(len(grid.of(method)) < len(grid.settings) for method in grid.methods):
        notes.append("a method without some setting is not comparable with those that have all")
    return Table(f"{title}: spread over settings", header, lines, notes)


def sensitivity(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stem: Path,
    formats: Sequence[str] = ("png",),
) -> bool:
    """Draw every method's score at every setting as a heat map; whether there was anything.

    A line a method, a column a setting; what is not known is hatched. Writes `<stem>.<format>`.
    """
    rows = group_cells(manifest, results, {})
    grid = grid_of(manifest, rows)
    if grid is None or not grid.scores:
        return False
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [wrapped(method, _LETTERS) for method in grid.methods]
    heights = sum(1 + 0.5 * name.count("\n") for name in names)
    width = min(PAGE, max(COLUMN, 1.2 + _CELL * len(grid.settings)))
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure((width, _LINE * heights + 1.25), layout="constrained")
        panel = figure.subplots()
        _draw(panel, grid)
        panel.set_yticks(range(len(names)), names, fontsize=SMALL, linespacing=0.95)
        measured = [row for row in rows if row.results]
        words = METRICS.get(metric_of(measured[0]), metric_of(measured[0]))
        panel.set_title(f"{split_of(measured[0])} {words}, last epoch", loc="left")
        save(figure, stem, formats)
    return True


def _draw(panel: Any, grid: Grid) -> None:
    """Colours from the worst score to the best of all, each score as a number in its cell."""
    lines = [[grid.scores.get((m, s)) for s in grid.settings] for m in grid.methods]
    known = list(grid.scores.values())
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    shades = [[float("nan") if v is None else (v - low) / span for v in line] for line in lines]
    panel.set_facecolor("#f0f0f0")
    panel.imshow(shades, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, (line, tones) in enumerate(zip(lines, shades, strict=True)):
        for x, (value, tone) in enumerate(zip(line, tones, strict=True)):
            text = MISSING if value is None else f"{value:.1f}"
            colour = "white" if value is not None and tone < 0.5 else "black"
            panel.text(x, y, text, ha="center", va="center", fontsize=SMALL, color=colour)
    ticks = [literal(setting) for setting in grid.settings]
    panel.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", rotation_mode="anchor")
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _line(method: str, grid: Grid) -> list[str]:
    known = grid.of(method)
    count = f"{len(known)} of {len(grid.settings)}"
    if not known:
        return [method, count, *[MISSING] * 6]
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    cells = [f"{known[best]:.2f}", best, f"{known[worst]:.2f}", worst]
    deviation = f"{stdev(known.values()):.2f}" if len(known) > 1 else MISSING
    return [method, count, *cells, f"{known[best] - known[worst]:.2f}", deviation]


def _headlined(rows: Sequence[Row]) -> str:
    found = (result.get("headline") for row in rows for result in row.results)
    return next(filter(None, found), "test/acc")
