"""What a folder of somebody's own holds, and what is said of one that cannot be trained on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bnnbench.data.known import DatasetDamaged, DatasetMissing, check_there, data_folder
from bnnbench.data.sizing import batch_size_for, effective_size_for, epochs_for
from bnnbench.data.survey import layout, survey

CLASSES = {"ant": 6, "bee": 5, "cat": 4}


def fill(folder: Path, classes: Mapping[str, int] = CLASSES) -> None:
    """Class folders of files that are called images: a survey opens none."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").touch()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("train", name) for name in ("test", "val", "valid", "validation")),
        ("Training", "Testing"),
    ],
)
def test_splits_are_known_by_name(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train)
    fill(tmp_path / test, dict.fromkeys(CLASSES, 2))
    found = survey(tmp_path)
    assert (found.layout.train, found.layout.test) == (train, test)
    assert found.layout.classes == ("ant", "bee", "cat")
    assert (found.counts, found.train_images(None)) == ((6, 5, 4), 15)
    assert found.layout.unread == {}


def test_test_goes_before_val_which_is_left_unread(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        fill(tmp_path / split)
    found = layout(tmp_path)
    assert (found.test, found.unread) == ("test", {"val": "test is tested on"})


def test_a_tree_without_splits_leaves_a_part_of_each_class_to_test_on(tmp_path: Path) -> None:
    fill(tmp_path)
    found = survey(tmp_path)
    assert (found.layout.splits, found.layout.test) == (("",), None)
    assert found.train_images(0.2) == 5 + 4 + 3
    assert found.train_images(0.5) == 3 + 3 + 2  # 2.5 is rounded to even
    assert found.train_images(0.01) == 5 + 4 + 3  # one at least
    assert found.train_images(0.99) == 3  # and one is left


def test_images_to_predict_are_no_split_to_test_on(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").touch()
    found = layout(tmp_path)
    assert (found.splits, found.unread) == (("train",), {"test": "has no class folders"})


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    fill(tmp_path, {"car": 2, "test": 2, "train": 2})
    assert layout(tmp_path).classes == ("car", "test", "train")


def test_what_is_hidden_or_left_by_a_mac_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, CLASSES | {".ipynb_checkpoints": 1, "__MACOSX": 1})
    found = layout(tmp_path)
    assert found.classes == ("ant", "bee", "cat")
    assert set(found.unread) == {".ipynb_checkpoints", "__MACOSX"}


def archive(folder: Path) -> None:
    fill(folder / "insects" / "train")


def differing(folder: Path) -> None:
    fill(folder / "train")
    fill(folder / "val", {"ant": 1, "bee": 1, "dog": 1})


def voc(folder: Path) -> None:
    fill(folder, {"JPEGImages": 2, "Annotations": 0})


def flat(folder: Path) -> None:
    (folder / "a.jpg").touch()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: None, "holds no class folders: put"),
    "flat": (flat, "holds image files, but no class folders: put"),
    "archive": (archive, r"nothing but the folder insects: give dataset\.folder=\S+/insects$"),
    "one class": (lambda root: fill(root, {"ant": 3}), "one class folder, ant: there is nothing"),
    "empty": (
        lambda root: fill(root, CLASSES | {"dog": 0, "eel": 0}),
        "no image files in dog, eel: fill or delete them$",
    ),
    "empty in a split": (
        lambda root: [fill(root / "train"), fill(root / "val", CLASSES | {"bee": 0})],
        "no image files in val/bee: fill or delete it$",
    ),
    "nested": (
        lambda root: [fill(root / "animals"), fill(root / "plants")],
        "no image files in animals, plants: .*; animals holds folders, such as ant$",
    ),
    "alone": (lambda root: fill(root, CLASSES | {"dog": 1}), "one image alone in dog: a class"),
    "differ": (differing, "train has 3 classes and val 3; only one of them has cat, dog: both"),
    "no train": (
        lambda root: [fill(root / "val"), fill(root / "test")],
        "holds test, val, but no folder train with class folders",
    ),
    "detection": (voc, "read it with dataset=voc_folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_cannot_be_used_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(DatasetDamaged, match=message) as caught:
        survey(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(DatasetDamaged, match="is a file: unpack it"):
        layout(tmp_path / "a.zip")


def test_a_folder_is_sought_in_the_data_folder_and_in_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, here = tmp_path / "data", tmp_path / "here"
    for place in (data / "both", here / "both", here / "mine", data / "theirs"):
        place.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(data))
    for typed, place in {
        "both": data / "both",
        "./both": here / "both",
        "mine": here / "mine",
        "mine/": here / "mine",
        "../data/theirs": data / "theirs",
        ".": here,
        "..": tmp_path,
        str(here / "both"): here / "both",
        "~/both": data / "both",
        "absent": data / "absent",
    }.items():
        assert data_folder(typed, data) == place, typed
    with pytest.raises(DatasetMissing, match=rf"no {data}/absent nor {here}/absent; give"):
        check_there("absent", data)
    with pytest.raises(DatasetMissing, match="no /absent; give"):
        check_there("/absent", data)


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [
        (5, 16, 200),
        (480, 16, 200),  # 30 steps
        (1200, 32, 200),  # 37 steps
        (3000, 128, 200),
        (50_000, 128, 21),  # 390 steps, 8190 in all
        (1_281_167, 128, 10),
    ],
)
def test_batches_and_length_suit_a_set_of_any_size(images: int, batch: int, epochs: int) -> None:
    assert (batch_size_for(images), epochs_for(images)) == (batch, epochs)
    assert effective_size_for(images) == 10 * images


def test_an_epoch_has_twenty_steps_where_that_can_be() -> None:
    for images in range(320, 5000, 7):
        assert images // batch_size_for(images) >= 20


def test_a_survey_loads_no_torch() -> None:
    code = (
        "import sys; import bnnbench.data.survey, bnnbench.resolvers; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
