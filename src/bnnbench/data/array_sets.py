"""The sets of torchvision that are arrays in memory: what is known of them without torch."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from bnnbench.data.known import CIFAR10, CIFAR100, FASHION, DatasetMissing

DIGITS = tuple(string.digits)
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
STL = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
# Lower-case letters of EMNIST that look like their capitals, and are one class with them.
MERGED = frozenset("cijklmopsuvwxyz")
LETTERS = tuple(string.ascii_lowercase)
SIGNS = (*DIGITS, *string.ascii_uppercase, *LETTERS)
UNMERGED = tuple(sign for sign in SIGNS if sign not in MERGED)


@dataclass(frozen=True)
class InMemory:
    """A set that a class of torchvision reads at once.

    Attributes:
        shape: an image's (C, H, W).
        names: of the classes, in the order of the labels.
        train, test: numbers of images; 0 to test on where the set has one part.
        files: what torchvision keeps in the data folder, the set being there where all are.
        options: arguments of the class, beside those of the parts.
        parts: arguments of the class for the training and the test part.
        first: the label of the first class.
    """

    shape: tuple[int, int, int]
    names: tuple[str, ...]
    train: int
    test: int
    files: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    parts: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
    first: int = 0


SPLITS = ({"split": "train"}, {"split": "test"})


def _emnist(split: str, names: tuple[str, ...], train: int, test: int, first: int = 0) -> InMemory:
    options = {"split": split}
    return InMemory((1, 28, 28), names, train, test, ("EMNIST/raw",), options, first=first)


SETS: dict[str, InMemory] = {
    "MNIST": InMemory((1, 28, 28), DIGITS, 60000, 10000, ("MNIST/raw",)),
    "FashionMNIST": InMemory((1, 28, 28), FASHION, 60000, 10000, ("FashionMNIST/raw",)),
    "KMNIST": InMemory((1, 28, 28), KUZUSHIJI, 60000, 10000, ("KMNIST/raw",)),
    "QMNIST": InMemory((1, 28, 28), DIGITS, 60000, 60000, ("QMNIST/raw",)),
    "EMNIST/balanced": _emnist("balanced", UNMERGED, 112800, 18800),
    "EMNIST/byclass": _emnist("byclass", SIGNS, 697932, 116323),
    "EMNIST/bymerge": _emnist("bymerge", UNMERGED, 697932, 116323),
    "EMNIST/digits": _emnist("digits", DIGITS, 240000, 40000),
    "EMNIST/letters": _emnist("letters", LETTERS, 124800, 20800, first=1),
    "EMNIST/mnist": _emnist("mnist", DIGITS, 60000, 10000),
    "USPS": InMemory((1, 16, 16), DIGITS, 7291, 2007, ("usps.bz2", "usps.t.bz2")),
    "SEMEION": InMemory((1, 16, 16), DIGITS, 1593, 0, ("semeion.data",), parts=({},)),
    "CIFAR10": InMemory(
        (3, 32, 32), tuple(CIFAR10.split()), 50000, 10000, ("cifar-10-batches-py",)
    ),
    "CIFAR100": InMemory((3, 32, 32), tuple(CIFAR100.split()), 50000, 10000, ("cifar-100-python",)),
    "SVHN": InMemory(
        (3, 32, 32), DIGITS, 73257, 26032, ("train_32x32.mat", "test_32x32.mat"), parts=SPLITS
    ),
    "STL10": InMemory((3, 96, 96), STL, 5000, 8000, ("stl10_binary",), parts=SPLITS),
}


def known_set(name: str) -> InMemory:
    """A set by ``dataset.torchvision``. Raises DatasetMissing, which names all."""
    if name in SETS:
        return SETS[name]
    parts = [each for each in SETS if each.startswith(f"{name}/")]
    if parts:
        raise DatasetMissing(f"dataset.torchvision={name}: choose a part of it, {', '.join(parts)}")
    near = get_close_matches(name.upper(), {each.upper(): each for each in SETS}, n=1)
    meant = next((f" Did you mean {each}?" for each in SETS if [each.upper()] == near), "")
    raise DatasetMissing(
        f"dataset.torchvision={name} is no set of arrays of torchvision.{meant} There are "
        f"{', '.join(SETS)}; sets of image files, such as Food101, are read with "
        "dataset=image_folder dataset.folder=<folder>"
    )
