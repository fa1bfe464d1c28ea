"""Pictures of a detector: boxes over images, precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnnbench.plots import COLUMN, DISTINCT, PAGE, STYLE, literal, row_colours, save

_COLUMNS, _CELL = 4, PAGE / 4  # images a line, and inches of each
_CURVES = 3  # panels a line, where each class has one
_TRUE: dict[str, Any] = {"linewidth": 2.0, "alpha": 0.45, "linestyle": "-"}
_SCORE: dict[str, Any] = {"color": "white", "fontsize": 5, "va": "top", "clip_on": True}
_TAG: dict[str, Any] = {"edgecolor": "none", "boxstyle": "square,pad=0.1", "alpha": 0.85}
_FOUND: dict[str, Any] = {"linewidth": 0.8, "linestyle": "--"}


class Boxes(NamedTuple):
    """Boxes of one image: corners (n, 4), labels (n,) from 1, and scores (n,) of detections."""

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class Picture(NamedTuple):
    """An image (H, W, 3) with values in [0, 1], its objects and what was found."""

    image: np.ndarray
    true: Boxes
    found: Boxes


def draw_boxes(pictures: Sequence[Picture], classes: Sequence[str], stem: Path) -> Path:
    """A grid of images as ``<stem>.png``: objects in broad lines, detections dashed with score.

    Objects lie over detections and let them be seen through.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = -(-len(pictures) // _COLUMNS)
    colours = row_colours(classes)
    with rc_context(STYLE):
        figure = Figure(figsize=(_COLUMNS * _CELL, lines * _CELL + 0.3), layout="constrained")
        panels = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
        for panel in panels:
            panel.axis("off")
        for panel, picture in zip(panels, pictures, strict=False):
            panel.imshow(picture.image)
            _draw(panel, picture.found, classes, colours, _FOUND)
            _draw(panel, picture.true, classes, colours, _TRUE)  # last, so that it is seen
        _legend(figure, colours)
        save(figure, stem, ("png",), photographs=True)
    return stem.with_suffix(".png")


def _draw(
    panel: Any, boxes: Boxes, classes: Sequence[str], colours: Mapping[str, Any], style: Any
) -> None:
    from matplotlib.patches import Rectangle

    for index, (x1, y1, x2, y2) in enumerate(boxes.corners.tolist()):
        colour = colours[classes[int(boxes.labels[index]) - 1]]
        panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, **style))
        if boxes.scores is not None:
            text = f"{boxes.scores[index]:.2f}".removeprefix("0")
            place = max(x1, 0.0), max(y1, 0.0)
            panel.text(*place, text, bbox={"facecolor": colour, **_TAG}, **_SCORE)


def _legend(figure: Any, colours: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=literal(name)) for name, colour in colours.items()]
    lines += [Line2D([], [], color="black", label="true", **_TRUE)]
    lines += [Line2D([], [], color="black", label="found", **_FOUND)]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 12))


def draw_precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], ap: Mapping[str, float], stem: Path
) -> Path:
    """Precision over recall of each class as ``<stem>.png``, with its AP in percent.

    A few classes share a panel, more of them than there are colours have one each.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = row_colours(list(curves))
    labels = {name: f"{literal(name)} {100 * ap[name]:.1f}" for name in curves}
    limits: dict[str, Any] = {"xlim": (0, 1), "ylim": (0, 1.02)}
    many = len(curves) > DISTINCT
    lines = -(-len(curves) // _CURVES) if many else 1
    with rc_context(STYLE):
        size = (COLUMN, 0.9 * lines + 0.4 if many else 2.2)
        figure = Figure(figsize=size, layout="constrained")
        shape = (lines, _CURVES) if many else (1, 1)
        panels = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
        for number, (name, (precision, recall)) in enumerate(curves.items()):
            panel = panels[number if many else 0]
            colour = colours[next(iter(curves)) if many else name]
            panel.step(recall, precision, where="post", color=colour, label=labels[name])
            panel.set(**limits)
            if many:
                panel.set_title(labels[name], loc="left", pad=2)
        for panel in panels[len(curves) :]:
            panel.set_visible(False)
        figure.supxlabel("recall (AP % beside the name)" if many else "recall", fontsize=7)
        figure.supylabel("precision", fontsize=7)
        if curves and not many:
            figure.legend(loc="outside right upper", title="AP %")
        save(figure, stem, ("png",))
    return stem.with_suffix(".png")
