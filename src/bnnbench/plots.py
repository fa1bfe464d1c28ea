"""What all drawings share: one style, sizes of a paper's column and page, colours, labels.

Text is 6 points or more at its printed size. Colours are those of Okabe and Ito, which the
colour-blind tell apart; where there are more names than colours, names stand beside what they name.
"""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

COLUMN, PAGE = 3.3, 6.9  # widths of a paper's column and page, inches
FORMATS = ("png", "svg", "pdf")
SMALL = 6.0  # points: names within a panel
GREY = "#767676"  # what is there for comparison alone
DPI = 200  # of PNG files
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
    "pdf.fonttype": 42,  # text that readers of PDF can search and journals take
    "svg.hashsalt": "bnnbench",  # the same file every time
}
# Blue, vermilion, green, purple, orange, sky, black, of Okabe and Ito; their yellow is too light.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DISTINCT = len(_PALETTE)
MARKERS = "osD^vP*"  # as many: shape tells apart what colour does


class End(NamedTuple):
    """Where a line ends, and what it is called there."""

    x: float
    y: float
    name: str
    colour: Any


def literal(text: str) -> str:
    """Words as they are: a dollar sign in them starts no formula."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def row_colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour (red, green, blue from 0 to 1) a name; beyond ``DISTINCT`` names they repeat."""
    from matplotlib.colors import to_rgb

    names = list(dict.fromkeys(names))
    return {name: to_rgb(_PALETTE[i % DISTINCT]) for i, name in enumerate(names)}


def row_markers(names: Sequence[str]) -> dict[str, str]:
    """A marker a name, in step with its colour."""
    names = list(dict.fromkeys(names))
    return {name: MARKERS[i % DISTINCT] for i, name in enumerate(names)}


def wrapped(name: str, width: int) -> str:
    """A name on lines of ``width`` letters, a few more where a word is as long.

    Longer words may be broken behind a slash.
    """
    name = re.sub(r"\S+", lambda m: m[0].replace("/", "/ ") if len(m[0]) > width else m[0], name)
    width = max(width, min(width + 6, max(map(len, name.split()), default=0)))
    return "\n".join(line for part in name.splitlines() for line in textwrap.wrap(part, width))


def name_lines(panel: Any, ends: Sequence[End], width: int = 16) -> None:
    """Write names, ``width`` letters a line, at the heights where lines end, none over another.

    They stand to the right of the last end. Call it when the panel has its limits and all else that
    takes room.
    """
    upside_down = bool(panel.yaxis_inverted())  # numpy's
    known = sorted(ends, key=lambda end: end.y, reverse=upside_down)
    right = max((end.x for end in known), default=0.0)
    texts = [
        panel.annotate(
            wrapped(end.name, width),
            (right, end.y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            linespacing=1.15,
            color=end.colour,
            annotation_clip=False,
        )
        for end in known
    ]
    panel.figure.draw_without_rendering()  # so that the layout, and so each place, is known
    points = 72 / panel.figure.dpi
    wanted = [points * panel.transData.transform((right, end.y))[1] for end in known]
    heights = [1.25 * SMALL * (text.get_text().count("\n") + 1) for text in texts]
    room = panel.get_window_extent()
    inside = within(wanted, heights, points * room.y0, points * room.y1)
    for text, old, new in zip(texts, wanted, apart(inside, heights), strict=True):
        text.xyann = (4, new - old)


def within(
    places: Sequence[float], heights: Sequence[float], low: float, high: float
) -> list[float]:
    """Ascending centres of texts, moved so far that all that stand below and above fit in too."""
    below = list(accumulate(heights, initial=0.0))
    least = [low + b + h / 2 for b, h in zip(below, heights, strict=False)]
    most = [high - (below[-1] - b) + h / 2 for b, h in zip(below, heights, strict=False)]
    pairs = zip(places, least, most, strict=True)
    return [max(down, min(up, place)) for place, down, up in pairs]


def apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Ascending centres of texts of some heights, moved as little as makes none overlap."""
    steps = [(low + high) / 2 for low, high in pairwise(heights)]
    offsets = [0.0, *accumulate(steps)][: len(places)]
    blocks: list[list[float]] = []  # what touches moves as one
    for place, offset in zip(places, offsets, strict=True):
        blocks.append([place - offset])
        while len(blocks) > 1 and mean(blocks[-1]) < mean(blocks[-2]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    moved = [mean(block) for block in blocks for _ in block]
    return [centre + offset for centre, offset in zip(moved, offsets, strict=True)]


def legend_above(
    figure: Any, handles: Sequence[Any], labels: Sequence[str], columns: int, **options: Any
) -> Any:
    """A legend above the panels, in at most that many columns and no wider than the figure.

    Args:
        handles: what the labels stand for, one each.
        options: of matplotlib's ``Figure.legend``.

    Returns:
        matplotlib's legend.
    """
    place: dict[str, Any] = {"loc": "outside upper center", **options}
    legend = figure.legend(handles, labels, ncols=columns, **place)
    if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
        return legend
    legend.remove()
    return legend_above(figure, handles, labels, columns - 1, **options)


def name_points(panel: Any, points: Sequence[End]) -> None:
    """Write the names of points beside them, the first ones first, where there is room.

    A name that would lie over another one or over a point is left out. Call it when the panel has
    its limits.
    """
    from matplotlib.transforms import Bbox

    panel.figure.draw_without_rendering()
    points_of_pixel = 72 / panel.figure.dpi
    inside = panel.get_window_extent()
    centres = [panel.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    for point, (x, y) in zip(points, centres, strict=True):
        width = 0.64 * SMALL * len(point.name) / points_of_pixel
        height = 1.2 * SMALL / points_of_pixel
        for side, dx, dy in (("left", 7, 0), ("right", -7, 0), ("center", 0, 9), ("center", 0, -9)):
            left = x + dx - {"left": 0.0, "right": width, "center": width / 2}[side]
            box = Bbox.from_bounds(left, y + dy - height / 2, width, height)
            free = not any(box.overlaps(other) for other in taken)
            if free and inside.x0 <= box.x0 and box.x1 <= inside.x1 + 30 and box.y0 > inside.y0:
                taken.append(box)
                offset = (dx * points_of_pixel, dy * points_of_pixel)
                panel.annotate(
                    point.name,
                    (point.x, point.y),
                    xytext=offset,
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    fontsize=SMALL,
                    color=point.colour,
                )
                break


def save(
    figure: Any, stem: Path, formats: Sequence[str], photographs: bool = False, dpi: int = DPI
) -> None:
    """Write `<stem>.<format>`, the same bytes every time; call it within `rc_context(STYLE)`.

    Over photographs the colours of thin lines stay what they are, although few pixels have them.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        if suffix == "png":
            _save_png(figure, path, photographs, dpi)
        else:
            date = "CreationDate" if suffix == "pdf" else "Date"
            logging.getLogger("fontTools").setLevel(logging.WARNING)  # tells each step of a PDF
            figure.savefig(path, format=suffix, metadata={date: None})


def _save_png(figure: Any, path: Path, photographs: bool, dpi: int) -> None:
    """A palette PNG, a third of the size of a full-colour one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()
    size, pixels = canvas.get_width_height(), bytes(canvas.buffer_rgba())
    image = Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")
    method = Image.Quantize.FASTOCTREE if photographs else Image.Quantize.MEDIANCUT
    image.quantize(256, method, dither=Image.Dither.NONE).save(path, optimize=True)
