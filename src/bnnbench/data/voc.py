"""Object annotations in PASCAL VOC's layout, read and checked before a training starts.

A tree is a folder with ``JPEGImages/``, ``Annotations/`` (one XML file an image) and
``ImageSets/Main/<split>.txt`` (one image's name a line). Coordinates in the files count pixels from
1; boxes here are every coordinate minus 1, as the SSD repositories read them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from bnnbench.data.known import CORNERS, DatasetDamaged
from bnnbench.data.voc_tree import split_files, split_list

Object = tuple[list[float], int, bool]  # box x1 y1 x2 y2, label, difficult


@dataclass(frozen=True)
class Truths:
    """The objects of N images, M together; worker processes would copy a list of small tensors.

    Attributes:
        sizes: height and width of each image, int64 (N, 2).
        counts: objects of each image, int64 (N,).
        boxes: x1 y1 x2 y2 in pixels of the image, float32 (M, 4), image by image.
        labels: from 1 on in the order of the classes, 0 being background; int64 (M,).
        difficult: objects that an evaluation neither demands nor punishes, bool (M,).
    """

    sizes: Tensor
    counts: Tensor
    boxes: Tensor
    labels: Tensor
    difficult: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.counts)

    def __getitem__(self, images: Tensor) -> Truths:
        """The objects of some images, given by number, int64 (n,)."""
        ends = self.counts.cumsum(0)
        spans = zip((ends - self.counts)[images].tolist(), ends[images].tolist(), strict=True)
        rows = [torch.arange(start, end) for start, end in spans]
        kept = torch.cat(rows) if rows else torch.arange(0)
        sizes, counts = self.sizes[images], self.counts[images]
        return Truths(sizes, counts, self.boxes[kept], self.labels[kept], self.difficult[kept])

    def without_difficult(self) -> Truths:
        """The objects that are not difficult; an image may be left without any."""
        image = torch.arange(len(self)).repeat_interleave(self.counts)
        kept = ~self.difficult
        counts = image[kept].bincount(minlength=len(self))
        boxes, labels = self.boxes[kept], self.labels[kept]
        return Truths(self.sizes, counts, boxes, labels, self.difficult[kept])


def read_splits(
    folder: Path, splits: Sequence[str], classes: Sequence[str], bad_boxes: str = "error"
) -> tuple[np.ndarray, Truths]:
    """Image files as bytes (N,) and objects of some splits, one after the other.

    Args:
        folder: that the trees lie in, or the one tree itself.
        splits: ``<tree in folder>/<split>``, or ``<split>`` of the one tree.
        classes: names of the objects, in the order of their labels.
        bad_boxes: ``drop`` leaves boxes without area out, with a warning.

    Raises:
        DatasetMissing: a tree or a split's list is not there.
        DatasetDamaged: a file cannot be used; the message names it and says why.
    """
    numbers = {name: label for label, name in enumerate(classes, 1)}
    dropped: list[Path] | None = [] if bad_boxes == "drop" else None
    found: dict[str, Annotation] = {}
    for split in splits:
        files = dict(split_files(folder, split))
        if again := [image for image in files if image in found]:
            raise DatasetDamaged(
                f"{split_list(folder, split)} lists {again[0]}, as a split before it in "
                f"{list(splits)} does: name one of the two, or take the image off a list"
            )
        found |= {image: Annotation(xml, numbers, dropped) for image, xml in files.items()}
        if not any(found[image].objects for image in files):
            raise DatasetDamaged(
                f"{split_list(folder, split)}: no image of this split has an object; check its "
                "files in Annotations"
            )
    if dropped:
        rank_zero_warn(f"left out {len(dropped)} boxes without area, the first in {dropped[0]}")
    return np.array([os.fsencode(image) for image in found]), _packed(list(found.values()))


def find_classes(folder: Path, splits: Sequence[str]) -> list[str]:
    """The sorted names of the objects in some splits; raises as ``read_splits`` does."""
    names = set()
    for split in splits:
        for _, annotation in split_files(folder, split):
            names |= {
                element.findtext("name", "") for element in _parse(annotation).findall("object")
            }
    return sorted(name.strip() for name in names if name.strip())


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DatasetDamaged(f"{path} is not readable XML ({error}): replace it") from error


class Annotation:
    """One image's XML file, checked.

    Args:
        path: where the file lies.
        numbers: labels by class.
        dropped: collects the files of boxes without area; None refuses them.

    Attributes:
        size: height and width of the image.
        objects: in the file's order.

    Raises:
        DatasetDamaged: the message names the file and says why.
    """

    def __init__(self, path: Path, numbers: dict[str, int], dropped: list[Path] | None) -> None:
        self.path, self.numbers, self.dropped = path, numbers, dropped
        root = _parse(path)
        width, height = (self._number(root.find("size"), k, "size") for k in ("width", "height"))
        if min(width, height) < 1:
            raise self._damaged(f"its size is {width:g} x {height:g}", "write the image's pixels")
        self.size = int(height), int(width)
        read = (self._object(*entry) for entry in enumerate(root.findall("object"), 1))
        self.objects = [entry for entry in read if entry is not None]

    def _object(self, number: int, element: ElementTree.Element) -> Object | None:
        label, difficult = self._label(element, number), self._difficult(element, number)
        box = self._box(element, number)
        return None if box is None else (box, label, difficult)

    def _damaged(self, reason: str, advice: str) -> DatasetDamaged:
        return DatasetDamaged(f"{self.path}: {reason}; {advice}")

    def _number(self, parent: ElementTree.Element | None, key: str, what: str) -> float:
        text = parent.findtext(key) if parent is not None else None
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        reason = f"{what} has no {key}" if text is None else f"{key} of {what} is {text.strip()!r}"
        raise self._damaged(reason, "write a number there")

    def _box(self, element: ElementTree.Element, number: int) -> list[float] | None:
        """The box within the image, None where one without area is left out."""
        bounds = element.find("bndbox")
        if bounds is None:
            raise self._damaged(f"object {number} has no bndbox", "add it or delete the object")
        corners = [self._number(bounds, key, f"object {number}") for key in CORNERS]
        height, width = self.size
        box = [
            min(max(value - 1, 0.0), float(limit))
            for value, limit in zip(corners, (width, height) * 2, strict=True)
        ]
        if box[2] > box[0] and box[3] > box[1]:
            return box
        if self.dropped is None:
            raise self._damaged(
                f"object {number} has no area: xmin, ymin, xmax, ymax = "
                f"{', '.join(f'{value:g}' for value in corners)} in an image of {width} x {height}",
                "correct it, or leave such boxes out with dataset.bad_boxes=drop",
            )
        self.dropped.append(self.path)
        return None

    def _label(self, element: ElementTree.Element, number: int) -> int:
        name = element.findtext("name", "").strip()
        if name not in self.numbers:
            raise self._damaged(
                f"object {number} is of the unknown class {name!r}",
                f"known are {', '.join(self.numbers)}: set dataset.classes",
            )
        return self.numbers[name]

    def _difficult(self, element: ElementTree.Element, number: int) -> bool:
        text = element.findtext("difficult", "").strip() or "0"
        if text not in ("0", "1"):
            raise self._damaged(f"difficult of object {number} is {text!r}", "write 0 or 1")
        return text == "1"


def _packed(annotations: list[Annotation]) -> Truths:
    objects = [entry for annotation in annotations for entry in annotation.objects]
    boxes = [box for box, _, _ in objects]
    return Truths(
        torch.tensor([annotation.size for annotation in annotations]).view(-1, 2),
        torch.tensor([len(annotation.objects) for annotation in annotations]),
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
        torch.tensor([difficult for _, _, difficult in objects], dtype=torch.bool),
    )
