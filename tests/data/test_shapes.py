"""The generated set: its tree, its boxes against its pixels, and how it comes to lie on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from bnnbench.data import shapes, voc
from bnnbench.data.shapes import CLASSES, Shapes


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default set."""
    path = tmp_path_factory.mktemp("shapes") / "tree"
    Shapes().write(path)
    return path


def contents(tree: Path) -> dict[str, bytes]:
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def test_the_default_set_never_changes(tree):
    """Results of different versions are comparable only while these counts stay."""
    for split, images, labels, difficult in (
        ("trainval", 1024, [0, 1325, 1351, 1392], 396),
        ("test", 96, [0, 124, 138, 124], 44),
    ):
        files, truths = voc.read_splits(tree, [split], CLASSES)
        assert (len(files), len(truths)) == (images, images)
        assert truths.labels.bincount().tolist() == labels
        assert int(truths.difficult.sum()) == difficult
        assert (int(truths.counts.min()), int(truths.counts.max())) == (2, 6)
    sizes = [tuple(row) for row in voc.read_splits(tree, ["trainval"], CLASSES)[1].sizes.tolist()]
    assert set(sizes) == {(96, 96), (96, 72), (72, 96), (96, 120), (120, 96)}


def test_objects_are_of_fair_size_and_hardly_overlap(tree):
    _, truths = voc.read_splits(tree, ["trainval", "test"], CLASSES)
    sides = truths.boxes[:, 2:] - truths.boxes[:, :2] + 1
    smaller = truths.sizes.amin(1).repeat_interleave(truths.counts)
    assert ((sides / smaller[:, None]) > 0.18).all()
    assert ((sides / smaller[:, None]) < 0.63).all()
    for boxes in truths.boxes.split(truths.counts.tolist()):
        assert all(box_iou(a[None], b[None]) < 0.1 for a, b in combinations(boxes, 2))


def test_the_xml_files_hold_what_is_drawn(tree):
    """From 1 on, the last pixel included: read back, every coordinate is one less."""
    files, truths = voc.read_splits(tree, ["test"], CLASSES)
    boxes = truths.boxes.split(truths.counts.tolist())
    for number, (file, found) in enumerate(zip(files, boxes, strict=True), 1024):
        pixels, drawn = shapes.draw(96, 0, number)
        assert Path(file.decode()).stem == f"{number:06d}"
        left, top, right, bottom = np.array([shape.box for shape in drawn]).T
        assert ([left, top, right - 1, bottom - 1] == found.numpy().T).all()
        saved = np.asarray(Image.open(file.decode())).astype(float)
        assert np.abs(saved - pixels).mean() < 9  # JPEG


def test_boxes_are_around_the_pixels_of_their_colour(tree):
    """In images with two shapes of different classes, and so colours, that do not touch."""
    files, truths = voc.read_splits(tree, ["trainval"], CLASSES)
    two, checked = (truths.counts == 2).nonzero().flatten(), 0
    part = truths[two]
    pairs = zip(part.boxes.split(2), part.labels.split(2), part.difficult.split(2), strict=True)
    for file, (boxes, labels, difficult) in zip(files[two], pairs, strict=True):
        if labels[0] == labels[1] or difficult.any() or box_iou(boxes, boxes)[0, 1] > 0:
            continue
        pixels = np.asarray(Image.open(file.decode())).astype(float)
        for left, top, right, bottom in boxes.int().tolist():
            colour = pixels[(top + bottom) // 2, (left + right) // 2]
            rows, columns = np.where(np.abs(pixels - colour).max(2) < 60)
            seen = [columns.min(), rows.min(), columns.max(), rows.max()]
            assert np.abs(np.array(seen) - [left, top, right, bottom]).max() <= 4  # JPEG, a tip
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_fills_its_box_as_its_geometry_says(name, monkeypatch):
    """Area of the painted part: all of it, 5 of 9 squares, or half."""
    monkeypatch.setattr(shapes, "CLASSES", (name,))
    monkeypatch.setattr(shapes, "DIFFICULT", 0.0)
    share = {"rectangle": 1.0, "cross": 5 / 9, "triangle": 0.5}[name]
    for seed in range(5):
        pixels = np.zeros((96, 96, 3))
        shape = shapes._paint(np.random.RandomState(seed), pixels, (11, 20, 51, 71))
        assert (shape.name, shape.box, shape.difficult) == (name, (11, 20, 51, 71), False)
        painted = pixels.any(2)
        assert painted.sum() == painted[20:71, 11:51].sum()
        assert painted.sum() / (40 * 51) == pytest.approx(share, abs=0.05)


def test_difficult_objects_are_faint(monkeypatch):
    for share, expected in ((0.0, 1.0), (1.0, shapes.FAINT)):
        monkeypatch.setattr(shapes, "DIFFICULT", share)
        pixels = np.zeros((40, 40, 3))
        shape = shapes._paint(np.random.RandomState(0), pixels, (5, 5, 30, 30))
        assert shape.difficult == bool(share)
        assert 0.7 * 255 * expected <= pixels.max() <= 255 * expected


def test_the_same_numbers_are_drawn_everywhere_and_another_seed_draws_others(tmp_path):
    for name in ("a", "b"):
        np.random.seed(len(contents(tmp_path)))  # global generators have no part in it
        Shapes(6, 3, 40, seed=2).write(tmp_path / name)
    Shapes(6, 3, 40, seed=1).write(tmp_path / "c")
    one, same, other = (contents(tmp_path / name) for name in "abc")
    assert one == same
    assert set(one) == set(other)
    assert len(one) == 2 * 9 + 2
    assert not any(one[file] == other[file] for file in one if file.endswith(".jpg"))


def test_a_tree_is_named_for_what_it_holds_and_written_once(tmp_path, monkeypatch):
    given = [Shapes(), Shapes(9), Shapes(1024, 9), Shapes(1024, 96, 40), Shapes(seed=1)]
    assert len({entry.folder for entry in given}) == 5
    folder = Shapes(seed=1).folder
    monkeypatch.setattr(shapes, "VERSION", 99)
    assert Shapes(seed=1).folder != folder
    small = Shapes(4, 2, 32)
    small.write(tmp_path / "tree")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    small.write(tmp_path / "tree")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_several_processes_may_write_at_once(tmp_path):
    small = Shapes(20, 5, 40)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: small.write(tmp_path / "new" / "tree"), range(4)))
    small.write(tmp_path / "alone")
    assert contents(tmp_path / "new" / "tree") == contents(tmp_path / "alone")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tree"]


def test_a_tree_that_another_process_finished_first_is_kept(tmp_path, monkeypatch):
    small, place, draw = Shapes(4, 2, 32), tmp_path / "tree", shapes.draw

    def raced(*args: int) -> Any:
        (place / "theirs").mkdir(parents=True, exist_ok=True)
        return draw(*args)

    monkeypatch.setattr(shapes, "draw", raced)
    small.write(place)
    assert [path.name for path in place.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_writing_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def full(size: int, seed: int, number: int) -> Any:
        if number == 2:
            raise OSError("No space left on device")
        return draw(size, seed, number)

    draw = shapes.draw
    monkeypatch.setattr(shapes, "draw", full)
    with pytest.raises(OSError, match="No space left"):
        Shapes(4, 2, 32).write(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_the_option_draws_and_reads_its_tree(tmp_path, dataset_option):
    generate = {"trainval": 8, "test": 3, "size": 40, "seed": 5}
    data = dataset_option("shapes", tmp_path, generate=generate, image_size=48)
    data.prepare_data()
    data.setup()
    assert data.root == tmp_path / "shapes" / Shapes(**generate).folder
    assert (data.train_images, data.test_images, data.class_names) == (8, 3, list(CLASSES))
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 48, 48)
    labels = torch.cat([target["labels"] for target in targets])
    assert set(labels.tolist()) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({"trainval": 1}, "generate.trainval=1: draw at least 2"),
        ({"test": 0}, "generate.test=0"),
        ({"size": 16}, "generate.size=16: shapes need at least 32 pixels"),
        ({"seed": -1}, "generate.seed=-1"),
    ],
)
def test_arguments_are_checked(tmp_path, dataset_option, generate, message):
    with pytest.raises(ValueError, match=message):
        dataset_option("shapes", tmp_path, generate=generate)
