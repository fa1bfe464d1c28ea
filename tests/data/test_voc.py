"""Trees of PASCAL VOC's layout: what is read from them, what is refused, what is downloaded."""

from __future__ import annotations

import re
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from bnnbench.data import DatasetDamaged, DatasetMissing, voc, voc_lists, voc_tree
from bnnbench.data.voc import Rules
from bnnbench.data.voc_found import surveyed

CLASSES = ["red", "lime", "blue"]
IMAGES = {
    "b": [("blue", (11, 6, 20, 35), 0), ("red", (41, 2, 60, 40), 1)],
    "a": [],
    "c 1": [("lime", (1, 1, 9, 4), 0)],
    "d": [("lime", (5, 7, 50, 38), 1)],
}
SPLITS = {"trainval": ["b", "a"], "test": ["c 1", "d"]}


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable[..., Path]) -> Path:
    return write_tree(tmp_path / "tree", IMAGES, SPLITS)


def edit(tree: Path, name: str, *changes: tuple[str, str]) -> Path:
    """Replace text in an XML file, each the first time that it stands there."""
    path = tree / "Annotations" / f"{name}.xml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def per_image(truths: voc.Truths) -> list[tuple[list[list[float]], list[int], list[bool]]]:
    """Boxes, labels and marks of each image."""
    columns = (truths.boxes, truths.labels, truths.difficult)
    parts = [column.split(truths.counts.tolist()) for column in columns]
    return [tuple(entry.tolist() for entry in image) for image in zip(*parts, strict=True)]  # type: ignore[misc]


EXPECTED = {
    "b": ([[10, 5, 19, 34], [40, 1, 59, 39]], [3, 1], [False, True]),
    "a": ([], [], []),
    "c 1": ([[0, 0, 8, 3]], [2], [False]),
    "d": ([[4, 6, 49, 37]], [2], [True]),
}


def test_every_coordinate_is_one_less_and_labels_follow_the_classes(tree):
    files, truths = voc.read_splits(tree, ["trainval"], CLASSES)
    assert [Path(file.decode()).name for file in files] == ["b.jpg", "a.jpg"]  # the list's order
    assert per_image(truths) == [EXPECTED["b"], EXPECTED["a"]]
    assert truths.sizes.tolist() == [[40, 60], [40, 60]]  # height, width
    kinds = [truths.boxes.dtype, truths.labels.dtype, truths.difficult.dtype]
    assert kinds == [torch.float32, torch.int64, torch.bool]
    labels = voc.read_splits(tree, ["trainval"], ["blue", "red"])[1].labels
    assert labels.tolist() == [1, 2]


def test_splits_of_several_trees_follow_each_other(tmp_path, tree, write_tree):
    write_tree(tmp_path / "kit" / "more", {"e": [("red", (3, 3, 9, 9), 0)]}, {"trainval": ["e"]})
    files, truths = voc.read_splits(
        tmp_path, ["tree/test", "kit/more/trainval", "tree/trainval"], CLASSES
    )
    names = [Path(file.decode()).stem for file in files]
    assert names == ["c 1", "d", "e", "b", "a"]
    expected = EXPECTED | {"e": ([[2, 2, 8, 8]], [1], [False])}
    assert per_image(truths) == [expected[name] for name in names]


def test_some_images_and_objects_that_are_not_difficult(tree):
    _, truths = voc.read_splits(tree, ["trainval", "test"], CLASSES)
    names = ["b", "a", "c 1", "d"]
    for order in ([3, 0], [1], [], [0, 1, 2, 3]):
        part = truths[torch.tensor(order, dtype=torch.int64)]
        assert len(part) == len(order)
        assert per_image(part) == [EXPECTED[names[i]] for i in order]
    easy = truths.without_difficult()
    assert easy.counts.tolist() == [1, 0, 1, 0]
    assert easy.boxes.tolist() == [[10, 5, 19, 34], [0, 0, 8, 3]]
    assert (easy.labels.tolist(), easy.difficult.any().item()) == ([3, 2], False)


def test_forms_that_real_files_have(tree):
    """Fractions, borders overrun by a pixel, parts of objects, no mark, PNG, an odd list."""
    edit(
        tree,
        "b",
        ("<xmin>11<", "<xmin> 11.5<"),
        ("<ymin>6<", "<ymin>0<"),
        ("<xmax>60<", "<xmax>63<"),
        ("<difficult>0</difficult>", ""),
        ("<name>blue</name>", "<part><name>arm</name><bndbox/></part><name> blue </name>"),
    )
    picture = tree / "JPEGImages" / "b.jpg"
    Image.open(picture).save(picture.with_suffix(".PNG"))
    picture.unlink()
    listed = "\ufeffb\r\n\r\na  \r\n"
    (tree / "ImageSets" / "Main" / "trainval.txt").write_text(listed, encoding="utf-8")
    files, truths = voc.read_splits(tree, ["trainval"], CLASSES)
    assert [Path(file.decode()).name for file in files] == ["b.PNG", "a.jpg"]
    boxes = [[10.5, 0, 19, 34], [40, 1, 60, 39]]
    assert per_image(truths)[0] == (boxes, [3, 1], [False, True])


def test_the_classes_of_a_tree_are_found(tree):
    for splits, names in ((["trainval", "test"], ["blue", "lime", "red"]), (["test"], ["lime"])):
        assert surveyed(tree, splits, tree.parent).classes == names


def in_xml(*changes: tuple[str, str]) -> Callable[[Path], object]:
    return lambda tree: edit(tree, "b", *changes)


def in_list(text: str) -> Callable[[Path], object]:
    return lambda tree: (tree / "ImageSets" / "Main" / "trainval.txt").write_text(text)


def without(path: str) -> Callable[[Path], object]:
    return lambda tree: (tree / path).unlink()


WITHOUT_BOX = ("</difficult><bndbox>", "</difficult><box>"), ("</bndbox>", "</box>")
BAD_XML = {
    "cut off": (
        lambda tree: (tree / "Annotations" / "b.xml").write_text("<annotation><size>"),
        r"not readable XML \(no element found: line 1.*replace it",
    ),
    "binary": (
        lambda tree: (tree / "Annotations" / "b.xml").write_bytes(b"\xff\xd8\x00"),
        "not readable XML",
    ),
    "empty": (lambda tree: (tree / "Annotations" / "b.xml").write_text(""), "not readable XML"),
    "no size": (in_xml(("size>", "sizes>"), ("/size>", "/sizes>")), "size has no width"),
    "no width": (in_xml(("<width>60</width>", "")), "size has no width; write a number there"),
    "size 0": (in_xml(("<height>40<", "<height>0<")), "its size is 60 x 0"),
    "no bndbox": (in_xml(*WITHOUT_BOX), "object 1 has no bndbox; add it or delete the object"),
    "no ymax": (in_xml(("<ymax>35</ymax>", "")), "object 1 has no ymax"),
    "empty ymax": (in_xml(("<ymax>35<", "<ymax><")), "ymax of object 1 is ''"),
    "nan": (in_xml(("<ymax>40<", "<ymax>nan<")), "ymax of object 2 is 'nan'"),
    "infinite": (in_xml(("<ymax>40<", "<ymax>inf<")), "ymax of object 2 is 'inf'"),
    "text": (in_xml(("<xmin>11<", "<xmin>left<")), "xmin of object 1 is 'left'"),
    "no width of a box": (
        in_xml(("<xmax>20<", "<xmax>11<")),
        "object 1 has no area: xmin, ymin, xmax, ymax = 11, 6, 11, 35 in an image of 60 x 40; "
        "correct it, or .*dataset.bad_boxes=drop",
    ),
    "inverted": (in_xml(("<ymin>2<", "<ymin>41<")), "object 2 has no area: .* 41, 60, 40 in"),
    "outside": (in_xml(("<xmin>41<", "<xmin>70<"), ("<xmax>60<", "<xmax>90<")), "2 has no area"),
    "class": (
        in_xml(("blue", "Blue")),
        "object 1 is of the unknown class 'Blue'; known are red, lime, blue: "
        r"set 'dataset.classes=\[Blue,red\]'",
    ),
    "no name": (in_xml(("<name>blue</name>", "")), "unknown class ''"),
    "mark": (in_xml(("<difficult>1<", "<difficult>maybe<")), "difficult of object 2 is 'maybe'"),
}


@pytest.mark.parametrize("name", BAD_XML)
def test_an_xml_file_that_cannot_be_used_is_named(tree, name):
    damage, reason = BAD_XML[name]
    damage(tree)
    file = re.escape(str(tree / "Annotations" / "b.xml"))
    with pytest.raises(DatasetDamaged, match=f"{file}.*{reason}"):
        voc.read_splits(tree, ["trainval"], CLASSES)


BAD_TREE = {
    "no tree": (shutil.rmtree, DatasetMissing, "there is no split at all.*dataset.folder=<folder>"),
    "no list": (
        without("ImageSets/Main/trainval.txt"),
        DatasetMissing,
        r"Main/trainval.txt does not exist; these exist: test\. .*dataset.train and dataset.test",
    ),
    "empty list": (in_list("\n \n"), DatasetDamaged, r"trainval\.txt lists no image"),
    "twice": (in_list("a\nb\na\n"), DatasetDamaged, r"trainval\.txt lists a twice"),
    "class list": (in_list("a -1\nb  1\n"), DatasetDamaged, r"lists a -1, which has no image in"),
    "bytes": (
        lambda tree: (tree / "ImageSets/Main/trainval.txt").write_bytes(b"\xff\xfe"),
        DatasetDamaged,
        "cannot be read .*UTF-8",
    ),
    "no image": (
        without("JPEGImages/a.jpg"),
        DatasetDamaged,
        r"trainval\.txt lists a, which has no image in .*tree/JPEGImages: add it there or take",
    ),
    "no XML": (
        without("Annotations/a.xml"),
        DatasetDamaged,
        r"trainval\.txt lists a, which has no XML file in .*tree/Annotations",
    ),
    "no images at all": (
        lambda tree: shutil.rmtree(tree / "JPEGImages"),
        DatasetDamaged,
        "lists b, which has no image",
    ),
    "no object": (in_list("a\n"), DatasetDamaged, r"trainval\.txt: no image .* has an object"),
}


@pytest.mark.parametrize("name", BAD_TREE)
def test_a_tree_that_cannot_be_used_is_refused(tree, name):
    damage, kind, message = BAD_TREE[name]
    damage(tree)
    with pytest.raises(kind, match=message):
        voc.read_splits(tree, ["trainval"], CLASSES)


def test_each_split_needs_objects_and_images_of_its_own(tree):
    main = tree / "ImageSets" / "Main"
    (main / "none.txt").write_text("a\n")
    (main / "again.txt").write_text("d\nb\n")
    with pytest.raises(DatasetDamaged, match=r"none\.txt: no image of this split has an object"):
        voc.read_splits(tree, ["test", "none"], CLASSES)
    with pytest.raises(DatasetDamaged, match=r"again\.txt lists .*b\.jpg, as a split before it"):
        voc.read_splits(tree, ["trainval", "again"], CLASSES)


def test_boxes_without_area_are_left_out_where_that_is_asked_for(tree):
    edit(tree, "b", ("<xmax>20<", "<xmax>11<"))
    with pytest.warns(UserWarning, match=r"boxes without area left out: 1, the first in .*b\.xml"):
        _, truths = voc.read_splits(tree, ["trainval"], CLASSES, Rules(bad_boxes="drop"))
    assert per_image(truths)[0] == ([[40, 1, 59, 39]], [1], [True])
    edit(tree, "b", ("<xmax>11<", "<xmax>nan<"))  # not known to be without area
    with pytest.raises(DatasetDamaged, match="xmax of object 1 is 'nan'"):
        voc.read_splits(tree, ["trainval"], CLASSES, Rules(bad_boxes="drop"))


def count(truths: voc.Truths) -> tuple[int, int, int]:
    return len(truths), len(truths.labels), int(truths.difficult.sum())


def areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def test_a_hundred_real_voc_images(shared_data, dataset_option):
    kit = shared_data / "voc2012_mini" / "VOCdevkit"
    names = dataset_option("voc0712", shared_data).class_names
    files, truths = voc.read_splits(kit, ["VOC2012/train", "VOC2012/val"], names)
    assert count(truths) == (100, 273, 38)
    assert len(truths.labels.unique()) == 20
    assert truths.labels.bincount()[names.index("person") + 1] == 91
    assert count(voc.read_splits(kit, ["VOC2012/trainval"], names)[1]) == (100, 273, 38)
    limits = truths.sizes.flip(1).repeat(1, 2).repeat_interleave(truths.counts, 0)
    assert (truths.boxes >= 0).all()
    assert (truths.boxes < limits).all()  # at most the last pixel
    # as a person would look at it: 2007_000027.xml says 174, 101, 349, 351 of one person
    assert Path(files[0].decode()).name == "2007_000027.jpg"
    assert per_image(truths)[0] == ([[173, 100, 348, 350]], [15], [False])


def test_real_blood_cells(shared_data, tmp_path):
    """4888 boxes, two of them without area."""
    folder, names = shared_data / "bccd" / "BCCD", ["Platelets", "RBC", "WBC"]
    with pytest.raises(DatasetDamaged, match=r"BloodImage_003\d\d\.xml: object .*bad_boxes=drop"):
        voc.read_splits(folder, ["train", "val", "test"], names)
    with pytest.warns(UserWarning, match="boxes without area left out: 2"):
        _, truths = voc.read_splits(
            folder, ["train", "val", "test"], names, Rules(bad_boxes="drop")
        )
    assert count(truths) == (364, 4886, 0)
    for split, images in (("train", 205), ("val", 87), ("test", 72)):
        assert len(voc_lists.list_images(voc_tree.split_list(folder, split))) == images
    assert truths.labels.bincount().tolist() == [0, 361, 4153, 372]
    assert areas(truths.boxes).min() > 0
    assert surveyed(folder, ["test"], tmp_path) == (names, 0)
    assert surveyed(folder, ["train", "val", "test"], tmp_path) == (names, 2)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch, write_tree: Callable[..., Path]) -> list[str]:
    """Archives that torchvision "downloads"; the list names them."""
    fetched: list[str] = []

    def fetch(url: str, root: Path, filename: str, md5: str) -> None:
        fetched.append(filename)
        year = "VOC2012" if "2012" in filename else "VOC2007"
        split = "test" if "test" in filename else "trainval"
        part = Path(root) / f"part-{len(fetched)}"
        write_tree(part, {f"{split}{year}": [("red", (3, 3, 9, 9), 0)]}, {split: [split + year]})
        shutil.copytree(part, Path(root) / "VOCdevkit" / year, dirs_exist_ok=True)

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fetch)
    return fetched


VOC0712 = ["VOC2007/trainval", "VOC2012/trainval", "VOC2007/test"]


def test_voc_is_downloaded_once_and_whole(tmp_path, far_away):
    for _ in range(2):
        voc_tree.download(tmp_path, VOC0712)
    archives = ["VOCtest_06-Nov-2007", "VOCtrainval_06-Nov-2007", "VOCtrainval_11-May-2012"]
    assert sorted(name.removesuffix(".tar") for name in far_away) == sorted(archives)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VOC2007", "VOC2012"]
    files, _ = voc.read_splits(tmp_path, VOC0712, ["red"])
    assert len(files) == 3


def test_a_year_that_is_there_is_not_downloaded_nor_is_another_tree(tmp_path, far_away):
    (tmp_path / "VOC2007").mkdir()
    voc_tree.download(tmp_path, [*VOC0712, "mine/trainval", "trainval"])
    assert far_away == ["VOCtrainval_11-May-2012.tar"]
    assert list((tmp_path / "VOC2007").iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, far_away, monkeypatch):
    fetch = torchvision.datasets.voc.download_and_extract_archive

    def broken(*args: str, **options: str) -> None:
        fetch(*args, **options)
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", broken)
    with pytest.raises(DatasetMissing, match=r"VOC2007 is not in .*peer went away"):
        voc_tree.download(tmp_path, VOC0712)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_download_at_once(tmp_path, far_away, monkeypatch, write_tree):
    fetch = torchvision.datasets.voc.download_and_extract_archive

    def raced(*args: str, **options: str) -> None:
        fetch(*args, **options)
        place = tmp_path / "VOC2012"
        if not place.exists():
            write_tree(place, {}, {"trainval": ["faster"]})

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", raced)
    voc_tree.download(tmp_path, ["VOC2012/trainval"])
    listed = voc_lists.list_images(voc_tree.split_list(tmp_path, "VOC2012/trainval"))
    assert listed == ["faster"]


def test_voc_without_network_says_where_to_put_what(tmp_path, monkeypatch, dataset_option):
    def offline(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    data = dataset_option("voc0712", tmp_path)
    with pytest.raises(DatasetMissing, match=r"VOC2007 is not in .*VOCdevkit and .*no route") as e:
        data.prepare_data()
    for part in ("folder VOC2007", "paths.data_dir=", "BNNBENCH_DATA", "data/README.md"):
        assert part in str(e.value)
    assert list((tmp_path / "VOCdevkit").iterdir()) == []
    assert np.all([split.startswith("VOC20") for split in data.splits["train"]])
