"""Stamps of data: equal for equal content, whatever form or place it has."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from bnnbench.data import stamp
from bnnbench.data.known import IMAGE_EXTENSIONS, SOURCES

CLASSES = ("a", "b")


def module(dataset_option, name: str, root: Path, **options):
    data = dataset_option(name, root, channels_last=False, **options)
    data.setup()
    return data


def test_npz_and_torchvisions_layout_have_one_stamp(tmp_path, small, write_cifar, dataset_option):
    content = small("cifar10")
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "cifar10.npz", **content)
    write_cifar("cifar10", tmp_path / "b", content)
    first = module(dataset_option, "cifar10", tmp_path / "a")
    assert module(dataset_option, "cifar10", tmp_path / "b").stamp == first.stamp
    held_out = module(dataset_option, "cifar10", tmp_path / "a", val_fraction=0.2)
    assert held_out.stamp == first.stamp  # how it is parted is no matter of content
    assert first.stamp.startswith("sha256:")
    assert len(first.stamp) == 71


@pytest.mark.parametrize("key", ["train_images", "train_labels", "test_images", "test_labels"])
def test_one_pixel_or_label_changes_the_stamp(key, tmp_path, small, dataset_option):
    content = small("cifar10")
    np.savez(tmp_path / "cifar10.npz", **content)
    before = module(dataset_option, "cifar10", tmp_path).stamp
    flat = content[key].reshape(-1)
    flat[7] = (flat[7] + 1) % 10
    np.savez(tmp_path / "cifar10.npz", **content)
    assert module(dataset_option, "cifar10", tmp_path).stamp != before


def test_arrays_are_hashed_as_they_say() -> None:
    arrays = [torch.arange(n, dtype=torch.uint8).view(1, -1) for n in (2, 3, 4, 5)]
    text = b""
    for part, n in zip(stamp.PARTS, (2, 3, 4, 5), strict=True):
        text += f"{part} uint8 (1, {n})\n".encode() + bytes(range(n))
    assert stamp.of_arrays(arrays) == f"sha256:{hashlib.sha256(text).hexdigest()}"


def test_the_size_of_cifar10_takes_half_a_second() -> None:
    arrays = [torch.zeros(n, 3, 32, 32, dtype=torch.uint8) for n in (50_000, 1, 10_000, 1)]
    start = time.process_time()
    stamp.of_arrays(arrays)
    assert time.process_time() - start < 0.5


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "one" / "imagenet"
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for image in range(3):
                pixels = np.full((8, 8 + number, 3), 20 * image, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{image}.png")
    return root


def folder_stamp(dataset_option, root: Path) -> str:
    options = {"num_classes": 2, "batch_size": 2, "workers": 0}
    data = module(dataset_option, "imagenet", root.parent, **options)
    assert data.class_names == list(CLASSES)
    return data.stamp


def test_class_folders_may_move_and_hold_other_files(folders, tmp_path, dataset_option):
    before = folder_stamp(dataset_option, folders)
    (folders / "train" / "a" / "Thumbs.db").touch()
    (folders / "readme.txt").touch()
    assert folder_stamp(dataset_option, folders) == before
    moved = shutil.move(folders, tmp_path / "imagenet")
    assert folder_stamp(dataset_option, Path(moved)) == before


@pytest.mark.parametrize("change", ["added", "renamed", "larger", "other class"])
def test_class_folders_with_other_images_have_another_stamp(change, folders, dataset_option):
    before = folder_stamp(dataset_option, folders)
    image = folders / "val" / "b" / "2.png"
    if change == "added":
        shutil.copy(image, image.with_name("3.png"))
    elif change == "renamed":
        image.rename(image.with_name("3.png"))
    elif change == "larger":
        image.write_bytes(image.read_bytes() + b"\0")
    else:
        image.rename(folders / "val" / "a" / "3.png")
    assert folder_stamp(dataset_option, folders) != before


PATCH = [("red", (3, 3, 20, 20), 0)]
VOC = {"classes": ["red"], "num_classes": 1, "batch_size": 2, "workers": 0}


def test_trees_follow_lists_images_and_annotations(tmp_path, write_tree, dataset_option):
    tree = tmp_path / "voc_folder"
    images = dict.fromkeys("abcd", PATCH)
    write_tree(tree, images, {"trainval": ["a", "b"], "test": ["c"], "more": ["a", "b"]})
    (tree / "ImageSets" / "Main" / "more.txt").write_text("b\na\n")

    def found(**options) -> str:
        return module(dataset_option, "voc_folder", tmp_path, **VOC, **options).stamp

    stamps = [found(), found(train=["more"])]  # the same images, in another order
    (tree / "JPEGImages" / "e.jpg").touch()  # in no list
    assert found() == stamps[0]
    xml = tree / "Annotations" / "a.xml"
    xml.write_text(xml.read_text() + " ")
    stamps.append(found())
    (tree / "ImageSets" / "Main" / "test.txt").write_text("c\nd\n")
    stamps.append(found())
    assert len(set(stamps)) == 4


def test_what_is_known_without_torch_is_what_torchvision_and_scikit_learn_say() -> None:
    from sklearn.datasets import load_digits
    from torchvision.datasets import FashionMNIST

    assert IMAGE_EXTENSIONS[: len(IMG_EXTENSIONS)] == IMG_EXTENSIONS
    assert SOURCES["fashion_mnist"].names == tuple(FashionMNIST.classes)
    assert SOURCES["digits"].names == tuple(map(str, load_digits().target_names))
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        names = SOURCES[name].names
        assert len(set(names)) == SOURCES[name].classes == count
        assert list(names) == sorted(names)  # in both sets labels follow the alphabet
