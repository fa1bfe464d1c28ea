"""What ImageNet's folders hold: what is refused, in which words, before a run starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bnnbench.data import DatasetDamaged, imagenet

IDS = ("n01440764", "n01443537", "n01484850", "n01491361")
COUNTS = {"train": 8, "val": 4}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four classes that stand for the thousand: two images each to train on, one to test on."""
    monkeypatch.setattr(imagenet, "CLASSES", 4)
    monkeypatch.setattr(imagenet, "IMAGES", COUNTS)
    monkeypatch.setattr(imagenet, "FIRST_LABELS", (2, 0, 3, 1))
    monkeypatch.setattr(imagenet, "wordnet_ids", lambda: IDS)
    places = [f"train/{name}/{name}_{n}.JPEG" for name in IDS for n in range(2)]
    for number, label in enumerate((2, 0, 3, 1), 1):
        places.append(f"val/{IDS[label]}/ILSVRC2012_val_{number:08d}.JPEG")
    for place in places:
        file = tmp_path / "imagenet" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(file)
    return tmp_path / "imagenet"


def flat(root: Path) -> None:
    for file in list((root / "val").rglob("*.JPEG")):
        file.rename(root / "val" / file.name)
    for name in IDS:
        (root / "val" / name).rmdir()


def flat_train(root: Path) -> None:
    (root / "val").rename(root / "kept")
    (root / "train").rename(root / "val")
    flat(root)
    (root / "val").rename(root / "train")
    (root / "kept").rename(root / "val")


def exchanged(root: Path) -> None:
    """Two classes' validation images, as after a list in another order."""
    (root / "val" / IDS[0]).rename(root / "other")
    (root / "val" / IDS[1]).rename(root / "val" / IDS[0])
    (root / "other").rename(root / "val" / IDS[1])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flat": (flat, r"val holds 4 images side by side, .*val/<class>/.*ImageNet\('\S+', 'val'\)"),
    "flat to train on": (flat_train, r"train holds 8 images side by side, .*img_train\.tar"),
    "a class less": (
        lambda root: shutil.rmtree(root / "train" / IDS[1]),
        rf"train lacks {IDS[1]},",
    ),
    "a class more": (
        lambda root: shutil.copytree(root / "val" / IDS[1], root / "val" / "n00000001"),
        r"val has besides n00000001, of ImageNet's 4",
    ),
    "a class called otherwise": (
        lambda root: (root / "val" / IDS[3]).rename(root / "val" / "4"),
        rf"val lacks {IDS[3]} and has besides 4,",
    ),
    "in others' folders": (
        exchanged,
        rf"_00000002\.JPEG in {IDS[1]}, its class is {IDS[0]}: .*order",
    ),
    "an image more": (
        lambda root: shutil.copy(
            next(root.glob("val/*/*1.JPEG")), root / "val" / IDS[0] / "a.JPEG"
        ),
        r"val holds 5 images, ImageNet's has 4: unpack it again",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_is_not_imagenet_is_refused(name, root, dataset_option) -> None:
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DatasetDamaged, match=message) as told:
        dataset_option("imagenet", root.parent, num_classes=4).setup()
    assert "\n" not in str(told.value)


def test_training_images_that_are_missing_are_told(root, dataset_option, recwarn) -> None:
    next(root.glob(f"train/{IDS[0]}/*")).unlink()
    dataset_option("imagenet", root.parent, num_classes=4).setup()
    assert "train holds 7 images, ImageNet's has 8" in str(recwarn.pop(UserWarning).message)


def test_as_many_other_classes_are_warned_of(root, dataset_option, recwarn) -> None:
    for split in COUNTS:
        for name in IDS:
            (root / split / name).rename(root / split / f"class_{name}")
    dataset_option("imagenet", root.parent, num_classes=4).setup()
    assert "not ImageNet's WordNet ids, such as class_n01440764" in str(recwarn[0].message)


def test_imagenet_and_a_part_of_it_are_read_without_a_word(root, dataset_option, recwarn) -> None:
    data = dataset_option("imagenet", root.parent, num_classes=4)
    data.setup()
    assert data.class_names == list(IDS)
    assert data.parts["test"][1].tolist() == [0, 1, 2, 3]
    for split in COUNTS:
        shutil.rmtree(root / split / IDS[0])
    dataset_option("imagenet", root.parent, num_classes=3).setup()
    assert not [w for w in recwarn if "ImageNet" in str(w.message)]


def test_the_list_has_a_thousand_sorted_ids() -> None:
    """Tench comes first and toilet tissue last, as everybody numbers them."""
    ids = imagenet.wordnet_ids()
    assert len(set(ids)) == imagenet.CLASSES
    assert list(ids) == sorted(ids)
    assert (ids[0], ids[-1]) == ("n01440764", "n15075141")
    assert ids[imagenet.FIRST_LABELS[0]] == "n01751748"  # the sea snake of the first image
