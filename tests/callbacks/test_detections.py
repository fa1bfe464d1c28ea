"""Pictures of a detector: where boxes are drawn, and in which colours."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bnnbench.callbacks.detections import Boxes, Picture, draw_boxes, draw_precision_recall
from bnnbench.callbacks.pictures import DetectionPictures
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


def test_the_truth_lies_over_what_is_found(tmp_path: Path) -> None:
    """One box, found as a cat and in truth a dog: the dog's colour covers it."""
    box = np.array([[8.0, 8, 56, 56]])
    cat = Boxes(box, np.array([1]), np.array([0.9]))
    image = np.ones((64, 64, 3), dtype=np.float32)
    file = draw_boxes([Picture(image, Boxes(box, np.array([2])), cat)], CLASSES, tmp_path / "d")
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(float)[40:] / 255
    line = pixels[120:200, : pixels.shape[1] // 8].reshape(-1, 3)  # its left side, below the score
    cat_colour, dog = (np.array(row_colours(CLASSES)[name]) for name in CLASSES)
    beneath = 0.45 * dog + 0.55 * cat_colour  # a dash that is seen through the truth
    assert (np.abs(line - beneath).max(1) < 0.15).sum() > 20
    assert (np.abs(line - cat_colour).max(1) < 0.12).sum() == 0


def test_the_ten_detections_of_the_highest_scores_are_drawn(tmp_path: Path) -> None:
    scores = torch.cat([torch.linspace(0.05, 0.95, 19), torch.tensor([0.99])])
    boxes = torch.arange(20.0)[:, None] + torch.tensor([0.0, 0, 30, 30])
    found = {"scores": scores, "boxes": boxes, "labels": torch.ones(20, dtype=torch.int64)}
    pictures = DetectionPictures(tmp_path)
    truth = {"boxes": boxes[:1], "labels": torch.ones(1, dtype=torch.int64)}
    spec = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3)
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="test"), datamodule=SimpleNamespace(spec=spec)
    )
    module = SimpleNamespace(task="detection")
    weak = found | {"scores": scores / 4.1}  # four above 0.2
    batch = torch.zeros(2, 3, 64, 64), [truth, truth]
    pictures.on_test_batch_end(trainer, module, [found, weak], batch)
    strong, few = (picture.found for picture in pictures._pictures)
    assert strong.scores is not None
    assert strong.scores.round(2).tolist() == pytest.approx([0.99, *np.arange(0.95, 0.54, -0.05)])
    assert strong.corners[0].tolist() == boxes[19].tolist()
    assert few.scores is not None
    assert few.scores.round(2).tolist() == pytest.approx([0.24, 0.23, 0.22, 0.21], abs=0.001)


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


@pytest.mark.filterwarnings("error")
def test_no_class_with_objects_is_an_empty_panel(tmp_path: Path) -> None:
    assert draw_precision_recall({}, {}, tmp_path / "e").stat().st_size > 1000


def test_more_classes_than_colours_have_a_panel_each(tmp_path: Path) -> None:
    recall = np.linspace(0, 1, 11)
    heights = {}
    for count in (3, 9):
        curves = {f"class{i}": (1 - recall / 2, recall) for i in range(count)}
        file = draw_precision_recall(curves, dict.fromkeys(curves, 0.5), tmp_path / str(count))
        heights[count] = Image.open(file).size[1]
    assert heights[9] > 1.3 * heights[3]
