"""What arrays of images say of themselves: shapes, classes, numbers. Free of torch.

A config asks before a network is built. Of images the headers alone are read, of labels all. Every
set that cannot be trained on for its form is refused here, in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnbench.data import array_files
from bnnbench.data.array_files import Array
from bnnbench.data.array_sets import known_set
from bnnbench.data.known import (
    DatasetDamaged,
    DatasetMissing,
    data_folder,
    folder_places,
    set_name,
)
from bnnbench.data.survey import TEST, TEST_FRACTION, TRAIN, held_out

if TYPE_CHECKING:
    import numpy as np

FILES = ("file", "images", "labels", "test_images", "test_labels")  # keys of the config
WORDS = {
    "images": ("images", "x", "data", "image", "imgs"),
    "labels": ("labels", "y", "targets", "label", "target"),
}
LEAST_SIDE = 8  # pixels: what the smallest network takes, so that a shorter axis holds channels
FORMS = (
    "train_images, train_labels, test_images, test_labels; x_train, y_train, ...; images, labels"
)


@dataclass(frozen=True)
class Arrays:
    """Where the parts of a set are: images and labels to train on, and perhaps to test on."""

    images: Array
    labels: Array
    test_images: Array | None
    test_labels: Array | None


@dataclass(frozen=True)
class ArraySurvey:
    """What is known of a set of arrays before its images are read.

    Attributes:
        classes: their names, in the order of the labels that a network is to give.
        channels: of an image.
        sides: height and width in pixels.
        counts: images of each class in the part that is trained on.
        parted: whether there is a part to test on.
    """

    classes: tuple[str, ...]
    channels: int
    sides: tuple[int, int]
    counts: tuple[int, ...]
    parted: bool

    def train_images(self, test_fraction: float | None) -> int:
        """Images to train on, where a part of a set without one to test on is held out."""
        if self.parted:
            return sum(self.counts)
        part = TEST_FRACTION if test_fraction is None else test_fraction
        return sum(count - held_out(count, part) for count in self.counts)


def survey_of(dataset: Mapping[str, Any]) -> ArraySurvey:
    """What a config's data set holds, looked at once a process.

    Raises:
        DatasetMissing: keys that do not go together, a file that is not there.
        DatasetDamaged: one that does not hold what images and labels are.
    """
    check_keys(dataset)
    if (name := dataset.get("torchvision")) is not None:
        known = known_set(str(name))
        channels, *sides = known.shape
        each = known.train // len(known.names)
        rest = known.train - each * (len(known.names) - 1)
        counts = (rest, *(each,) * (len(known.names) - 1))  # about: their sum is exact
        return ArraySurvey(known.names, channels, (sides[0], sides[1]), counts, known.test > 0)
    return _survey(_stated(files_of(dataset)), located(dataset))


def name_of(dataset: Mapping[str, Any]) -> str:
    """What the set is called: its file or its class of torchvision, as one word."""
    check_keys(dataset)
    if (name := dataset.get("torchvision")) is not None:
        return str(name).replace("/", "_")
    file = data_folder(dataset.get("file") or dataset.get("images"), dataset["data_dir"])
    plain = re.sub(r"train|[^a-z]", "", file.stem.lower()) in (*WORDS["images"], "")
    return set_name(file.parent.name if plain else file.stem, str(file))


def check_keys(dataset: Mapping[str, Any]) -> None:
    """Refuse a set that is told in no way, in part or in two ways. Raises DatasetMissing."""
    given = [key for key in (*FILES, "torchvision") if dataset.get(key) is not None]
    pairs = (["images", "labels"], list(FILES[1:]), ["file"], ["torchvision"])
    if given not in pairs:
        told = " and ".join(f"dataset.{key}" for key in given)
        raise DatasetMissing(
            f"dataset=image_arrays {f'has {told}' if told else 'has no arrays'}: give dataset.file="
            "<set.npz>, or dataset.images=<x.npy> dataset.labels=<y.npy> (and test_images, "
            "test_labels), or dataset.torchvision=<class>"
        )


def files_of(dataset: Mapping[str, Any]) -> list[Path]:
    """The files that a set is read from. Raises DatasetMissing where one is not there."""
    found = []
    for key in FILES:
        if (typed := dataset.get(key)) is not None:
            path = data_folder(typed, dataset["data_dir"])
            if not path.is_file():
                places = " nor ".join(map(str, folder_places(typed, dataset["data_dir"])))
                raise DatasetMissing(f"dataset.{key}={typed}: there is no file {places}")
            found.append(path)
    return found


def located(dataset: Mapping[str, Any]) -> Arrays:
    """Where images and labels are. Raises as ``survey_of``."""
    files = files_of(dataset)
    if dataset.get("file") is None:
        arrays = [Array(array_files.checked_npy(file)) for file in files]
        return Arrays(*arrays[:2], *(arrays[2:] or (None, None)))
    (file,) = files
    keys = {re.sub(r"[^a-z0-9]", "", key.lower()): key for key in array_files.keys_of(file)}
    train = _pair(keys, TRAIN) or _pair(keys, ("",))
    if train is None:
        raise DatasetDamaged(
            f"{file} holds {', '.join(keys.values()) or 'nothing'}: images and labels are found "
            f"under {FORMS}"
        )
    test = next((pair for part in TEST if (pair := _pair(keys, (part,)))), None)
    pairs = [Array(file, key) for key in (*train, *(test or ()))]
    return Arrays(*pairs[:2], *(pairs[2:] or (None, None)))


def _pair(keys: Mapping[str, str], parts: Sequence[str]) -> tuple[str, str] | None:
    """Keys of images and labels of a part; None where the two are not there."""
    for part in parts:
        found = [
            next((keys[f] for w in words for f in (part + w, w + part) if f in keys), None)
            for words in WORDS.values()
        ]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _stated(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """What a survey holds for."""
    return tuple((str(file), s.st_size, s.st_mtime_ns) for file in files for s in [file.stat()])


@lru_cache(maxsize=64)
def _survey(stated: object, arrays: Arrays) -> ArraySurvey:
    import numpy as np  # not at every start

    shape = array_files.header(arrays.images)[0]
    channels, sides = image_form(shape, arrays.images.name)
    labels = read_labels(arrays.labels)
    _check_length(arrays.images.name, shape[0], arrays.labels.name, len(labels))
    values, counts = np.unique(labels, return_counts=True)
    _check_classes(arrays.labels.name, values, counts, parted=arrays.test_images is not None)
    if arrays.test_images is not None:
        other = array_files.header(arrays.test_images)[0]
        if image_form(other, arrays.test_images.name) != (channels, sides):
            raise DatasetDamaged(
                f"{arrays.test_images.name} {other} and {arrays.images.name} {shape} hold images "
                "of different size or channels"
            )
    names = tuple(str(value) for value in values.tolist())
    numbers = tuple(int(count) for count in counts)
    return ArraySurvey(names, channels, sides, numbers, arrays.test_images is not None)


def image_form(shape: Sequence[int], name: str) -> tuple[int, tuple[int, int]]:
    """Channels, and height and width, of images in an array of this shape."""
    axis = channel_axis(shape, name)
    sides = [side for number, side in enumerate(shape) if number not in (0, axis)]
    return (1 if axis is None else shape[axis]), (sides[0], sides[1])


def channel_axis(shape: Sequence[int], name: str) -> int | None:
    """1 of (N, C, H, W), 3 of (N, H, W, C), None of (N, H, W).

    An axis of fewer than eight is no side of an image; of more, sides are told by being equal.

    Raises:
        DatasetDamaged: none of the three, or not told apart.
    """
    if len(shape) == 3 and min(shape[1:]) >= LEAST_SIDE:
        return None
    if len(shape) == 4:
        first, last = shape[1] < LEAST_SIDE, shape[3] < LEAST_SIDE
        if not first and not last and shape[2] in (shape[1], shape[3]):
            first, last = shape[2] == shape[3] != shape[1], shape[1] == shape[2] != shape[3]
        if first != last and shape[2] >= LEAST_SIDE:
            return 1 if first else 3
    raise DatasetDamaged(
        f"{name} has the shape {tuple(shape)}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) "
        f"with at least {LEAST_SIDE} pixels a side{_advice(shape)}"
    )


def _advice(shape: Sequence[int]) -> str:
    if len(shape) == 2:
        side = round(shape[1] ** 0.5)
        sides = f"{side}, {side}" if side * side == shape[1] else "H, W"
        return f"; rows of pixels are images after x.reshape(-1, {sides})"
    if len(shape) == 4 and min(shape[1:]) >= LEAST_SIDE:
        return "; which axis holds the channels cannot be told: save one channel as (N, H, W)"
    return ""


def read_labels(array: Array) -> np.ndarray:
    """Labels (N,) of (N,), (N, 1) or one-hot (N, K): whole numbers or texts.

    Raises:
        DatasetDamaged: anything else.
    """
    import numpy as np

    labels, name = array_files.read(array), array.name
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not (((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DatasetDamaged(
                f"{name} {labels.shape} is not one-hot: a row needs a single 1, an image one class"
            )
        return labels.argmax(axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "biufUS":
        raise DatasetDamaged(
            f"{name} is {labels.dtype} {labels.shape}: labels are whole numbers or texts (N,) or "
            "(N, 1), or one-hot (N, classes)"
        )
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
            raise DatasetDamaged(f"{name} holds numbers that are not whole: labels are classes")
        return labels.astype(np.int64)
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def _check_length(images: str, count: int, labels: str, others: int) -> None:
    if count != others or count == 0:
        raise DatasetDamaged(
            f"{images} holds {count} images and {labels} {others} labels: the first axis of both "
            "counts images"
        )


def _check_classes(name: str, values: Any, counts: Any, parted: bool) -> None:
    if len(values) < 2:
        raise DatasetDamaged(
            f"{name} holds one class, {values[0]}: there is nothing to tell it from"
        )
    if 2 * len(values) > int(counts.sum()):
        raise DatasetDamaged(
            f"{name} holds {len(values)} different values in {int(counts.sum())} images: these are "
            "no classes"
        )
    if not parted and counts.min() < 2:
        alone = values[counts.argmin()]
        raise DatasetDamaged(
            f"{name}: one image alone is of class {alone}; a class needs one to train on and one "
            "to test on"
        )
