"""Files that cannot be used are told all at once before a training, or left out."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from bnnbench.data import DatasetDamaged, FolderDataModule, usable, voc
from bnnbench.data.voc import Rules

RED, BLUE = ("red", (3, 3, 20, 20), 0), ("blue", (30, 10, 55, 35), 0)
IMAGES = {f"i{n:02d}": [RED, BLUE] for n in range(16)}
SPLITS = {"train": list(IMAGES)[:12], "test": list(IMAGES)[12:]}
PARTS = {part: [part] for part in SPLITS}
NAMES = ["red", "blue"]


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable[..., Path]) -> Path:
    return write_tree(tmp_path / "set", IMAGES, SPLITS)


def damage(tree: Path) -> dict[str, str]:
    """Spoil fourteen files of both parts; what is said of each."""
    said = {}
    images, xml = tree / "JPEGImages", tree / "Annotations"
    whole = (images / "i00.jpg").read_bytes()
    for name, content, reason in (
        ("i00", b"", "it is empty"),
        ("i01", b"<html>not found</html>", "it is a web page"),
        ("i02", whole[: len(whole) // 2], "truncated"),
        ("i03", whole[:-2], "truncated"),
        ("i12", whole[:20], ""),
    ):
        (images / f"{name}.jpg").write_bytes(content)
        said[f"JPEGImages/{name}.jpg"] = f" cannot be read .*{reason}"
    for name, content in (("i04", "<annotation>"), ("i05", ""), ("i13", "no XML")):
        (xml / f"{name}.xml").write_text(content)
        said[f"Annotations/{name}.xml"] = " is not readable XML"
    for number in (6, 7, 8, 9, 10, 14):
        Image.new("RGB", (61, 40)).save(images / f"i{number:02d}.jpg")
        said[f"JPEGImages/i{number:02d}.jpg"] = " has 61 x 40 pixels, its XML file says 60 x 40"
    return said


def test_all_bad_files_of_all_parts_are_told_at_once_ten_by_name(tree):
    said = damage(tree)
    with pytest.raises(DatasetDamaged, match=rf"14 files of {tree} cannot be used") as error:
        voc.read_parts(tree, PARTS, NAMES)
    told = str(error.value)
    assert "\n" not in told
    named = [file for file, reason in said.items() if re.search(f"{file}{reason}", told)]
    assert len(named) == usable.NAMED
    assert len(re.findall(r"\w+/i\d\d\.", told)) == usable.NAMED
    assert "; and 4 more; correct or replace them, or leave such images out" in told
    assert told.endswith("dataset.bad_images=drop")


def test_images_that_cannot_be_used_are_left_out_where_that_is_asked_for(tree):
    damage(tree)
    with pytest.warns(UserWarning, match=r"images that cannot be used left out: 14, the first in "):
        parts = voc.read_parts(tree, PARTS, NAMES, Rules(bad_images="drop"))
    kept = {part: [os.fsdecode(f)[-7:-4] for f in files] for part, (files, _) in parts.items()}
    assert kept == {"train": ["i11"], "test": ["i15"]}
    assert parts["train"][1].boxes.tolist() == [[2, 2, 19, 19], [29, 9, 54, 34]]


def test_a_part_of_which_nothing_is_left_is_refused(tree):
    damage(tree)
    (tree / "Annotations" / "i15.xml").write_text("")
    with (
        pytest.warns(UserWarning, match="images that cannot be used left out: 15"),
        pytest.raises(DatasetDamaged, match=r"test\.txt: no image of this split has an object"),
    ):
        voc.read_parts(tree, PARTS, NAMES, Rules(bad_images="drop"))


def test_one_bad_file_has_its_own_advice(tree):
    file = tree / "JPEGImages" / "i02.jpg"
    file.write_bytes(b"")
    pattern = rf"^{file} cannot be read \(.*\); replace it, or leave such images out with dataset"
    with pytest.raises(DatasetDamaged, match=pattern):
        voc.read_parts(tree, PARTS, NAMES)


@pytest.mark.parametrize(("kind", "rest"), [("PNG", 1), ("WEBP", 0)])
def test_damage_of_other_files_is_found_by_decoding(tmp_path, kind, rest):
    """A half of zeros in a PNG, a WebP that is cut there."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    files = [tmp_path / f"{name}.{kind.lower()}" for name in "ab"]
    for file in files:
        Image.fromarray(noise).save(file, kind)
    content = files[1].read_bytes()
    half = len(content) // 2
    files[1].write_bytes(content[:half] + rest * bytes(len(content) - half))
    (problem,) = usable.unusable(dict.fromkeys(map(str, files)))
    assert problem.file == str(files[1])


def test_what_stands_behind_a_jpegs_end_is_no_damage(tree):
    file = tree / "JPEGImages" / "i02.jpg"
    file.write_bytes(file.read_bytes() + bytes(30))
    assert len(voc.read_parts(tree, PARTS, NAMES)["train"][0]) == 12


def test_sound_files_are_looked_at_once(tree, tmp_path, monkeypatch):
    rules = Rules(keep=tmp_path / "keep")
    voc.read_parts(tree, PARTS, NAMES, rules)
    looked: list[str] = []
    real = usable.check_image
    monkeypatch.setattr(usable, "check_image", lambda path: looked.append(path) or real(path))
    voc.read_parts(tree, PARTS, NAMES, rules)
    assert looked == []
    file = tree / "JPEGImages" / "i02.jpg"
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(1, 1))
    voc.read_parts(tree, PARTS, NAMES, rules)
    assert len(looked) == 16


def photograph(tree: Path, name: str, turn: int) -> Path:
    """An image of 40 x 60 pixels upright whose file holds it as a camera with that tag would."""
    file = tree / "JPEGImages" / f"{name}.jpg"
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[turn]
    upright = Image.new("RGB", (40, 60), (128, 128, 128))
    upright.paste((255, 0, 0), (2, 2, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = turn
    upright.transpose(back).save(file, exif=exif, quality=95)
    return file


def describe(tree: Path, name: str, width: int, height: int) -> None:
    xml = tree / "Annotations" / f"{name}.xml"
    text = xml.read_text().replace("<width>60<", f"<width>{width}<")
    xml.write_text(text.replace("<height>40<", f"<height>{height}<").replace(">55<", ">35<"))


def test_a_rotated_photograph_that_is_described_upright_is_right(tree, dataset_option):
    for name, turn in (("i12", 6), ("i13", 3)):
        photograph(tree, name, turn)
        describe(tree, name, 40, 60)
    options: dict[str, Any] = {"folder": str(tree), "image_size": 32, "workers": 0}
    data = dataset_option("voc_folder", tree.parent / "data", **options)
    data.prepare_data()
    data.setup()
    images, targets = next(iter(data.test_dataloader()))
    assert targets[0]["boxes"][0].tolist() == pytest.approx([1.6, 2 * 32 / 60, 15.2, 19 * 32 / 60])
    for image in images[:2]:  # red is where the box says
        assert image[0, 5, 8] > image[0, 25, 25] + 1
        assert image[1, 5, 8] < image[1, 25, 25] - 1


def test_a_rotated_photograph_that_is_described_as_stored_is_named(tree):
    file = photograph(tree, "i03", 6)
    with pytest.raises(DatasetDamaged) as error:
        voc.read_parts(tree, PARTS, NAMES)
    assert str(error.value).startswith(
        f"{file} is a rotated photograph: its EXIF orientation 6 makes it 40 x 60 pixels upright, "
        "its XML file describes it as stored, 60 x 40; save it upright"
    )


def test_exchanged_sides_without_a_tag_are_named(tree):
    Image.new("RGB", (40, 60)).save(tree / "JPEGImages" / "i03.jpg")
    with pytest.raises(DatasetDamaged, match=r"has 40 x 60 .*says 60 x 40: they are exchanged, as"):
        voc.read_parts(tree, PARTS, NAMES)


def test_advice_about_classes_can_be_pasted(tree):
    """Numbers, words of Hydra's grammar and of the shell's, as the message has them."""
    names = ["0", "R&B", "null", "it's a", "Bär", "red", "1e3"]
    for number, name in enumerate(names):
        xml = tree / "Annotations" / f"i{number:02d}.xml"
        escaped = name.replace("&", "&amp;")
        xml.write_text(xml.read_text().replace(">blue<", f">{escaped}<"), encoding="utf-8")
    with pytest.raises(DatasetDamaged, match="object 2 is of the unknown class '0'") as error:
        voc.read_parts(tree, PARTS, NAMES)
    (word,) = shlex.split(str(error.value).partition(": set ")[2])
    typed = OverridesParser.create().parse_override(word)
    assert typed.key_or_group == "dataset.classes"
    assert set(map(str, typed.value())) == {*names, "blue"}  # type: ignore[arg-type]
    voc.read_parts(tree, PARTS, [str(name) for name in typed.value()])  # type: ignore[union-attr]


def test_boxes_without_area_are_told_all_at_once(tree):
    for name in ("i01", "i14"):
        xml = tree / "Annotations" / f"{name}.xml"
        xml.write_text(xml.read_text().replace("<xmax>20<", "<xmax>3<"))
    with pytest.raises(DatasetDamaged, match=r"2 files of .*i01.*i14.*dataset\.bad_boxes=drop"):
        voc.read_parts(tree, PARTS, NAMES)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of six training images and two to test on."""
    for split, count in (("train", 6), ("val", 2)):
        for name in ("a", "b"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(folder / f"{number}.jpg")
    return tmp_path / "imagenet"


def test_bad_files_of_class_folders_are_told_or_dropped(folders, dataset_option):
    def build(**options: Any) -> FolderDataModule:
        small = {"num_classes": 2, "image_size": 32, "workers": 0}
        data = dataset_option("imagenet", folders.parent, **small | options)
        data.setup()
        return data

    assert build().train_images == 12
    bad = [folders / "train" / "a" / "1.jpg", folders / "val" / "b" / "0.jpg"]
    for file in bad:
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DatasetDamaged, match=r"2 files of .*train/a/1\.jpg.*val/b/0\.jpg.*drop$"):
        build()
    with pytest.warns(UserWarning, match="images that cannot be used left out: 2"):
        data = build(bad_images="drop")
    assert torch.equal(data.parts["train"][1], torch.tensor([0] * 5 + [1] * 6))
    assert {os.fsencode(file) for file in bad}.isdisjoint(
        [*data.parts["train"][0].tolist(), *data.parts["test"][0].tolist()]
    )
    with pytest.raises(ValueError, match="bad_images=skip: choose from error, drop"):
        build(bad_images="skip")
