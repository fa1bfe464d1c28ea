"""Detection folders as they occur: where images and XML files lie, lists, classes, made splits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bnnbench.data import DatasetDamaged, DetectionDataModule, kept, voc_split, voc_tree
from bnnbench.data.known import data_folder
from bnnbench.data.voc_found import find_splits, found, surveyed
from bnnbench.records.fingerprint import fingerprint

RED, BLUE = ("red", (3, 3, 20, 20), 0), ("blue", (30, 10, 55, 35), 0)
IMAGES = {f"i{n:02d}": [RED] if n % 3 else [RED, BLUE] for n in range(20)}
NAMES = sorted(IMAGES)
# the first fifth of them by `printf '0 %s' <name> | sha256sum`
TESTED = ["i09", "i11", "i12", "i16"]
MADE = {"train": [voc_split.TRAIN], "test": [voc_split.TEST]}
Write = Callable[..., Path]
Build = Callable[..., DetectionDataModule]


@pytest.fixture
def plain(tmp_path: Path, write_tree: Write) -> Path:
    """``set/JPEGImages`` and ``set/Annotations`` without lists."""
    tree = write_tree(tmp_path / "set", IMAGES, {})
    shutil.rmtree(tree / "ImageSets")
    return tree


@pytest.fixture
def build(tmp_path: Path, dataset_option: Callable[..., Any]) -> Build:
    """The data module of ``voc_folder.yaml`` for a folder, with nothing else typed."""

    def built(folder: Path, data_dir: Path | None = None, **options: Any) -> DetectionDataModule:
        keys = {"folder": str(folder), "image_size": 32, "workers": 0} | options
        data = dataset_option("voc_folder", data_dir or tmp_path / "data", **keys)
        data.prepare_data()
        data.setup("fit")
        return data

    return built


def stems(data: DetectionDataModule, part: str) -> list[str]:
    return [Path(os.fsdecode(file)).stem for file in data.parts[part][0]]


LAYOUTS = [
    ("images", "annotations"), ("imgs", "annots"), ("img", "labels"), ("IMAGES", "Labels"),
    ("Images", "annotations/xmls"), (".", "."), (".", "annotations"), ("images", "images"),
    ("JPEGImages", "."),
]  # fmt: skip


@pytest.mark.parametrize(("images", "annotations"), LAYOUTS)
def test_images_and_xml_files_are_found_by_any_usual_name(plain, build, images, annotations):
    for before, after in (("JPEGImages", images), ("Annotations", annotations)):
        (plain / before).rename(plain / "moved")
        (plain / after).mkdir(parents=True, exist_ok=True)
        for file in (plain / "moved").iterdir():
            file.rename(plain / after / file.name)
        (plain / "moved").rmdir()
    (plain / images / "._i00.jpg").write_bytes(b"a Mac's")
    data = build(plain)
    assert (data.train_images, data.test_images, data.class_names) == (16, 4, ["blue", "red"])
    assert sorted(stems(data, "train") + stems(data, "test")) == NAMES


PARTS = [
    (["train", "test"], ["train/*"], ["test/*"]),
    (["train", "valid", "test"], ["train/*", "valid/*"], ["test/*"]),
    (["Train", "VAL"], ["Train/*"], ["VAL/*"]),
    (["training", "validation", "testing"], ["training/*", "validation/*"], ["testing/*"]),
]


@pytest.mark.parametrize(("names", "train", "test"), PARTS)
def test_folders_of_parts_are_trained_and_tested_on(
    tmp_path, write_tree, build, names, train, test
):
    for number, name in enumerate(names):
        images = {f"{name}{n}": [RED, BLUE] for n in range(2 + number)}
        tree = write_tree(tmp_path / "set" / name, images, {})
        shutil.rmtree(tree / "ImageSets")
    data = build(tmp_path / "set")
    assert data.splits == {"train": train, "test": test}
    assert data.train_images == (5 if len(names) == 3 else 2)
    assert data.test_images == len(names) + 1


LISTS = [
    (["trainval", "test"], ["trainval"], ["test"]),
    (["trainval", "train", "val", "test"], ["trainval"], ["test"]),
    (["train", "val", "test"], ["train", "val"], ["test"]),
    (["train", "val"], ["train"], ["val"]),
    (["trainval", "train", "val"], ["train"], ["val"]),
    (["training", "Validation"], ["training"], ["Validation"]),
    (["trainval", "red_trainval"], *MADE.values()),
    (["train"], *MADE.values()),
]


@pytest.mark.parametrize(("lists", "train", "test"), LISTS)
def test_lists_that_are_there_are_used(plain, build, lists, train, test):
    main = plain / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for number, name in enumerate(lists):
        part = NAMES[:10] if number == 0 else NAMES[10 + 3 * (number - 1) :][:3]
        (main / f"{name}.txt").write_text("\n".join(part) + "\n")
    before = {file.name: file.read_text() for file in main.iterdir()}
    data = build(plain)
    assert data.splits == {"train": train, "test": test}
    used = {*stems(data, "train"), *stems(data, "test")}
    assert used <= set(NAMES[:10]) or train != MADE["train"]
    assert {name: (main / name).read_text() for name in before} == before


def test_names_on_lists_may_have_their_ending(plain, build):
    main = plain / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("".join(f"{name}.jpg\n" for name in NAMES[:9]))
    (main / "val.txt").write_text("".join(f"images/{name}.JPG\n" for name in NAMES[9:]))
    data = build(plain)
    assert stems(data, "train") + stems(data, "test") == NAMES


def test_a_made_split_is_one_for_all_and_is_written(plain, build, tmp_path, capsys):
    data = build(plain)
    lists = {name: plain / "ImageSets" / "Main" / f"{name}.txt" for name in voc_split.MADE}
    written = {name: file.read_text().split() for name, file in lists.items()}
    assert written == {voc_split.TRAIN: stems(data, "train"), voc_split.TEST: stems(data, "test")}
    assert written[voc_split.TEST] == TESTED
    told = capsys.readouterr().err
    assert f"{plain}: 16 images to train on (bnnbench_train); 4 images to test on" in told
    assert "2 classes: blue, red" in told
    moved = Path(shutil.copytree(plain, tmp_path / "elsewhere" / "other"))
    shutil.rmtree(moved / "ImageSets")
    assert stems(build(moved, seed=9), "test") == written[voc_split.TEST]


def test_images_that_are_added_do_not_change_a_split(plain, build, capsys):
    data = build(plain)
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        shutil.copy(plain / kind / f"i00.{ending}", plain / kind / f"new.{ending}")
    shutil.copy(plain / "JPEGImages" / "i00.jpg", plain / "JPEGImages" / "unlabelled.jpg")
    capsys.readouterr()
    again = build(plain)
    assert stems(again, "train") == stems(data, "train")
    assert again.stamp == data.stamp
    told = capsys.readouterr().err
    assert "left out: 1 images without an XML file, 1 on neither list" in told


def test_a_folder_that_may_not_be_written_is_left_alone(plain, build, tmp_path):
    (tmp_path / "none").mkdir()
    for folder in (plain, tmp_path / "none"):
        folder.chmod(0o555)
    try:
        first, again = build(plain), build(plain)
        assert not (plain / "ImageSets").exists()
        kept_lists = list((tmp_path / "data" / kept.FOLDER / "splits").rglob("*.txt"))
        assert sorted(file.stem for file in kept_lists) == sorted(voc_split.MADE)
        assert stems(first, "test") == stems(again, "test") == TESTED
        third = build(plain, data_dir=tmp_path / "none")
        assert (stems(third, "test"), third.stamp) == (stems(first, "test"), first.stamp)
        assert list((tmp_path / "none").iterdir()) == []
    finally:
        for folder in (plain, tmp_path / "none"):
            folder.chmod(0o755)


def test_nothing_that_is_there_is_replaced(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("mine")
    assert kept.write_new(file, "other")
    assert file.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_one_image_makes_no_set(tmp_path, write_tree):
    tree = write_tree(tmp_path / "set", {"a": [RED]}, {})
    with pytest.raises(DatasetDamaged, match="holds 1 image with an XML file of the same name"):
        voc_tree.list_names(tree, voc_split.TRAIN)


def test_the_one_tree_in_folders_is_found(plain, build, tmp_path):
    (tmp_path / "zip" / "inner").mkdir(parents=True)
    plain.rename(tmp_path / "zip" / "inner" / "set")
    (tmp_path / "zip" / "__MACOSX").mkdir()
    assert find_splits(tmp_path / "zip")["test"] == [f"inner/set/{voc_split.TEST}"]
    assert build(tmp_path / "zip").test_images == 4
    shutil.copytree(tmp_path / "zip" / "inner" / "set", tmp_path / "zip" / "inner" / "b c")
    with pytest.raises(ValueError, match="several sets, b c, set: choose one with"):
        find_splits(tmp_path / "zip" / "inner")


def yolo(folder: Path) -> None:
    (folder / "labels").mkdir()
    (folder / "labels" / "i00.txt").write_text("0 0.5 0.5 0.2 0.3\n2 0.1 0.1 0.05 0.1\n")


def coco(folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text('{"images": []}')


def roboflow(folder: Path) -> None:
    content = {"info": {}, "images": [], "annotations": []}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def labelme(folder: Path) -> None:
    (folder / "i00.json").write_text('{"version": "5", "shapes": [], "imagePath": "i00.jpg"}')


def table(folder: Path) -> None:
    (folder / "labels.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")


FOREIGN = {
    yolo: r"labels in YOLO's form \(labels/i00.txt\)",
    coco: r"annotations in COCO's form \(annotations/instances_train.json\)",
    roboflow: "annotations in COCO's form",
    labelme: "labels in LabelMe's form",
    table: "labels in a CSV table",
    (lambda folder: (folder / "classes.txt").write_text("cat\ndog\n")): "no images with XML files",
}


@pytest.mark.parametrize("write", FOREIGN)
def test_labels_of_other_forms_are_refused_by_name(tmp_path, write):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "i00.jpg")
    write(folder)
    with pytest.raises(ValueError, match=FOREIGN[write]) as error:
        find_splits(folder)
    assert "\n" not in str(error.value)
    assert "one XML file an image" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    dataset = {"folder": "nowhere", "data_dir": str(tmp_path), "train": ["a"], "test": ["b"]}
    assert found("train", dataset) == ["trainval"]  # as a run of a list that was typed is called
    assert found("bad_boxes", dataset) == "error"
    with pytest.raises(ValueError, match=r"no folder .*nowhere: set dataset\.folder="):
        found("classes", dataset)


def test_where_a_folder_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for place in ("data/both", "both", "here", "home/mine"):
        (tmp_path / place).mkdir(parents=True)
    places = {"both": "data/both", "here": "here", "none": "data/none", "~/mine": "home/mine"}
    for typed, place in places.items():
        assert data_folder(typed, tmp_path / "data") == tmp_path / place
    assert data_folder(tmp_path / "here", "data") == tmp_path / "here"


def test_classes_and_boxes_without_area_are_found_and_kept(plain, tmp_path):
    splits, data_dir = MADE["train"] + MADE["test"], tmp_path / "data"
    assert surveyed(plain, splits, data_dir) == (["blue", "red"], 0)
    (file,) = (data_dir / kept.FOLDER).iterdir()
    file.write_text(file.read_text().replace("blue", "kept"))
    code = (
        "import sys; from pathlib import Path; from bnnbench.data.voc_found import surveyed; "
        "print(surveyed(Path(sys.argv[1]), sys.argv[3:], sys.argv[2]).classes); "
        "sys.exit(bool({'torch', 'numpy', 'lightning'} & {*sys.modules}))"
    )
    words = [sys.executable, "-c", code, str(plain), str(data_dir), *splits]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['kept', 'red']"
    xml = plain / "Annotations" / "i01.xml"
    xml.write_text(xml.read_text().replace("<xmax>20<", "<xmax>3<").replace("red", "x & y", 0))
    (plain / "Annotations" / "i02.xml").write_text("no XML")  # a run tells of it
    os.utime(plain / "Annotations")
    assert surveyed(plain, splits, data_dir) == (["blue", "red"], 1)


def test_a_config_states_what_is_found(plain, compose):
    words = ["dataset=voc_folder", f"dataset.folder={plain}", "backbone=ssd300_resnet18"]
    dataset = compose(*words).dataset
    assert (dataset.train, dataset.test) == (MADE["train"], MADE["test"])
    assert (dataset.classes, dataset.num_classes) == (["blue", "red"], 2)
    assert dataset.bad_boxes == "error"
    lists = [f"dataset.{part}=[{names[0]}]" for part, names in MADE.items()]
    typed = [*lists, "dataset.classes=[blue,red]", "dataset.bad_boxes=error"]
    assert fingerprint(compose(*words, *typed)) == fingerprint(compose(*words))
    assert fingerprint(compose(*words, "dataset.bad_images=drop")) != fingerprint(compose(*words))
    typed = compose(*words, "dataset.classes=[red,blue,0]", "dataset.train=[x]").dataset
    assert (typed.classes, typed.num_classes, typed.train) == (["red", "blue", 0], 3, ["x"])
    xml = plain / "Annotations" / "i01.xml"
    xml.write_text(xml.read_text().replace("<xmax>20<", "<xmax>3<"))
    os.utime(plain / "Annotations")
    assert compose(*words).dataset.bad_boxes == "drop"
