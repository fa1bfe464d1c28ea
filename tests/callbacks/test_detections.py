"""Pictures of a detector: where boxes are drawn, and in which colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from bnnbench.callbacks.detections import Boxes, Picture, draw_boxes, draw_precision_recall
from bnnbench.plots import row_colours

CLASSES = ("cat", "dog")


def picture(*objects: tuple[tuple[float, ...], int], found: bool) -> Picture:
    corners = np.array([box for box, _ in objects], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in objects], dtype=np.int64)
    none = Boxes(np.zeros((0, 4)), np.zeros(0))
    image = np.ones((64, 64, 3), dtype=np.float32)
    if found:
        return Picture(image, none, Boxes(corners, labels, np.full(len(labels), 0.7)))
    return Picture(image, Boxes(corners, labels), none)


def coloured(file: Path, name: str) -> np.ndarray:
    """Rows and columns of a class's colour, below the legend."""
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(float)[40:] / 255
    colour = np.array(row_colours(CLASSES)[name])
    faded = 1 - 0.45 * (1 - colour)  # as true boxes are drawn over white
    near = [np.abs(pixels - shade).max(2) < 0.06 for shade in (colour, faded)]
    return np.argwhere(near[0] | near[1])


def test_a_box_stands_where_its_corners_say(tmp_path: Path) -> None:
    """The first of four panels; a box over its left upper quarter."""
    for found in (False, True):
        file = draw_boxes([picture(((4, 4, 28, 28), 2), found=found)], CLASSES, tmp_path / "a")
        assert len(coloured(file, "cat")) == 0
        place = coloured(file, "dog")
        width = np.asarray(Image.open(file)).shape[1] / 4
        assert place[:, 1].max() < 0.5 * width
        assert np.ptp(place[:, 1]) > 0.33 * width


def test_every_image_has_its_panel(tmp_path: Path) -> None:
    """Five images: two lines of four panels, the boxes in the first and the fifth."""
    pictures = [picture(found=False)] * 3
    pictures = [picture(((4, 4, 60, 60), 1), found=False), *pictures]
    pictures.append(picture(((4, 4, 60, 60), 2), found=True))
    file = draw_boxes(pictures, CLASSES, tmp_path / "b")
    assert coloured(file, "cat")[:, 0].max() < coloured(file, "dog")[:, 0].min()


def test_precision_and_recall_span_the_panel(tmp_path: Path) -> None:
    recall = np.linspace(0, 1, 11)
    curves = {"cat": (1 - recall / 2, recall), "dog": (np.array([]), np.array([]))}
    file = draw_precision_recall(curves, {"cat": 0.75, "dog": 0.0}, tmp_path / "c")
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(float) / 255
    cat = np.abs(pixels - np.array(row_colours(list(curves))["cat"])).max(2) < 0.06
    columns = np.where(cat.sum(0) > 0)[0]
    assert np.ptp(columns) > 0.5 * pixels.shape[1]
