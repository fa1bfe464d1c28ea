"""What a tree of class folders holds: splits, classes, numbers of images. Free of torch.

A config asks before a network is built: how many classes there are, and how many images to train
on. Every tree that cannot be trained on is refused here, in one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bnnbench.data import listing
from bnnbench.data.known import DatasetDamaged

# Names of splits, in any case, the first that is there; further ones are not read.
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
TEST_FRACTION = 0.2  # of a tree that has no split to test on
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Layout:
    """Where in a folder the class folders are.

    Attributes:
        root: the folder.
        train: split to train on, relative to it; empty where its own folders are the classes.
        test: split to test on; None where a part of ``train`` has to be held out for that.
        classes: names of the class folders, sorted.
        unread: folders beside these that are left alone, each with the reason.
    """

    root: Path
    train: str
    test: str | None
    classes: tuple[str, ...]
    unread: dict[str, str]

    @property
    def splits(self) -> tuple[str, ...]:
        """What is read of the folder, to train on first."""
        return (self.train,) if self.test is None else (self.train, self.test)


@dataclass(frozen=True)
class Survey:
    """A layout with the numbers of images that it holds.

    Attributes:
        layout: where they are.
        counts: images of each class in the split that is trained on.
    """

    layout: Layout
    counts: tuple[int, ...]

    def train_images(self, test_fraction: float | None) -> int:
        """Images to train on, where a part of a tree without a split to test on is held out."""
        if self.layout.test is not None:
            return sum(self.counts)
        part = TEST_FRACTION if test_fraction is None else test_fraction
        return sum(count - held_out(count, part) for count in self.counts)


def held_out(count: int, fraction: float) -> int:
    """Images of a class of ``count`` that are tested on: at least one, and one is left."""
    return min(max(round(fraction * count), 1), count - 1)


@lru_cache(maxsize=64)
def survey(root: Path) -> Survey:
    """Layout and numbers of images of a folder, looked at once a process.

    Raises:
        DatasetDamaged: as ``layout``, or a class has no images, or none to hold out.
    """
    found = layout(root)
    images = {split: listing.class_images(root / split) for split in found.splits}
    numbers = {
        split: [len(images[split][name].images) for name in found.classes] for split in found.splits
    }
    empty = [
        str(Path(split) / name)
        for split, counts in numbers.items()
        for name, count in zip(found.classes, counts, strict=True)
        if not count
    ]
    if empty:
        raise DatasetDamaged(
            f"{root}: no image files in {_listed(empty)}: fill or delete "
            f"{'it' if len(empty) == 1 else 'them'}{_nested(root / empty[0])}"
        )
    counts = numbers[found.train]
    if found.test is None and (single := [*_of_one(found, counts)]):
        raise DatasetDamaged(
            f"{root / found.train}: one image alone in {_listed(single)}: a class needs one to "
            "train on and one to test on; add images, or a folder test with class folders"
        )
    return Survey(found, tuple(counts))


def layout(root: Path) -> Layout:
    """Where in a folder the class folders are.

    Raises:
        DatasetDamaged: there are none, or only one, or the splits have different ones.
    """
    _check_folder(root)
    names = {name.lower(): name for name in subfolders(root)}
    train = next((names[name] for name in TRAIN if classes_of(root / names.get(name, "?"))), None)
    offered = [names[name] for name in TEST if name in names]
    if train is None:
        _check_tree(root, offered)
        return _checked(root, "", None, {})
    test = next((name for name in offered if classes_of(root / name)), None)
    remaining = [name for name in offered if name != test]
    reason = "has no class folders" if test is None else f"{test} is tested on"
    return _checked(root, train, test, dict.fromkeys(remaining, reason))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders that can be classes or splits, sorted; none where there is no folder."""
    return listing.listed(folder).folders if folder.is_dir() else []


def classes_of(split: Path) -> list[str]:
    """The sorted classes of a split; none of one that is not there or whose images have none.

    Tiny-ImageNet's test set, all in one folder, has none.
    """
    names = listing.class_names(split) if split.is_dir() else []
    return [] if names == [listing.FOLDER] else names


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise DatasetDamaged(f"{root} is a file: unpack it, and name the folder that it makes")
    folders = subfolders(root)
    if {"JPEGImages", "Annotations"} <= set(folders):
        raise DatasetDamaged(f"{root} holds images with boxes: read it with dataset=voc_folder")
    if not folders:
        what = "image files, but no" if listing.listed(root).images else "no"
        raise DatasetDamaged(
            f"{root} holds {what} class folders: put the images of each class into a folder "
            "of its name"
        )
    inner = root / folders[0]
    if len(folders) == 1 and folders[0].lower() not in TRAIN and classes_of(inner):
        raise DatasetDamaged(
            f"{root} holds nothing but the folder {folders[0]}: give dataset.folder={inner}"
        )


def _check_tree(root: Path, offered: list[str]) -> None:
    """Refuse splits without one to train on; a class may be called ``train`` or ``test``."""
    if offered and len(offered) == len(subfolders(root)) and classes_of(root / offered[0]):
        raise DatasetDamaged(
            f"{root} holds {_listed(offered)}, but no folder train with class folders to train on"
        )


def _checked(root: Path, train: str, test: str | None, unread: dict[str, str]) -> Layout:
    classes = classes_of(root / train)
    if test is not None:
        check_classes(root, {train: classes, test: classes_of(root / test)})
    if len(classes) < 2:
        raise DatasetDamaged(
            f"{root / train} holds one class folder, {classes[0]}: there is nothing to tell it "
            "from; give the folder that holds a folder for each class"
        )
    hidden = (
        name for name in listing.listed(root / train).hidden if (root / train / name).is_dir()
    )
    unread |= dict.fromkeys(sorted(hidden), "is no class")
    return Layout(root, train, test, tuple(classes), unread)


def check_classes(root: Path, classes: dict[str, list[str]]) -> None:
    """Refuse two splits with different class folders. Raises DatasetDamaged."""
    (first, ours), (second, theirs) = classes.items()
    if only := sorted(set(ours) ^ set(theirs)):
        raise DatasetDamaged(
            f"{root}: {first} has {len(ours)} classes and {second} {len(theirs)}; only one of "
            f"them has {_listed(only)}: both need the same class folders"
        )


def _of_one(found: Layout, counts: list[int]) -> Iterable[str]:
    return (name for name, count in zip(found.classes, counts, strict=True) if count == 1)


def _nested(folder: Path) -> str:
    """What else may be wrong with a class folder without images."""
    inside = subfolders(folder)
    return f"; {folder.name} holds folders, such as {inside[0]}" if inside else ""


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
