"""Object annotations in PASCAL VOC's layout, read and checked before a training starts.

A tree is a folder with images and XML files (one an image), and lists of images as splits:
``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/<split>.txt``, or as ``voc_layout`` says.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnnbench.data.annotations import Annotation, Object
from bnnbench.data.known import BadFile, DatasetDamaged
from bnnbench.data.quoting import quoted_override
from bnnbench.data.usable import REMEDY, told, unusable, warn_of
from bnnbench.data.voc_tree import split_files, split_list


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


@dataclass(frozen=True)
class Rules:
    """What is made of what cannot be used.

    Attributes:
        bad_boxes: ``error`` refuses boxes without area, ``drop`` leaves them out with a warning.
        bad_images: ``error`` refuses images that cannot be read, or whose XML file cannot be used,
            ``drop`` leaves such images out with a warning.
        keep: where lists lie that may not be written into their tree, and marks of what is sound.
    """

    bad_boxes: str = "error"
    bad_images: str = "error"
    keep: Path | None = None


def read_splits(
    folder: Path, splits: Sequence[str], classes: Sequence[str], rules: Rules | None = None
) -> tuple[np.ndarray, Truths]:
    """Image files and objects of one part of a set, as ``read_parts`` reads it."""
    return read_parts(folder, {"": splits}, classes, rules)[""]


def read_parts(
    folder: Path,
    parts: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    rules: Rules | None = None,
) -> dict[str, tuple[np.ndarray, Truths]]:
    """Image files as bytes (N,) and objects of the parts of a set, split after split.

    Args:
        folder: that the trees lie in, or the one tree itself.
        parts: ``<tree in folder>/<split>``, or ``<split>`` of the one tree, by part.
        classes: names of the objects, in the order of their labels.
        rules: what is left out, and what refused.

    Raises:
        DatasetMissing: a tree or a split's list is not there.
        DatasetDamaged: files cannot be used; the message names them and says why.
    """
    rules = rules or Rules()
    listed = {part: _listed(folder, splits, rules.keep) for part, splits in parts.items()}
    files: dict[str, Path] = {}
    for splits in listed.values():
        for images in splits.values():
            files |= images
    usable = _usable(folder, files, classes, rules)
    read = {}
    for part, splits in listed.items():
        for split, images in splits.items():
            if not any(_objects(usable[image]) for image in images if image in usable):
                raise DatasetDamaged(
                    f"{split_list(folder, split)}: no image of this split has an object; check "
                    "its files in Annotations"
                )
        kept = {i: usable[i] for images in splits.values() for i in images if i in usable}
        read[part] = np.array([os.fsencode(image) for image in kept]), _packed(kept, classes)
    return read


def _listed(folder: Path, splits: Sequence[str], keep: Path | None) -> dict[str, dict[str, Path]]:
    """XML file by image of each split; an image is in one of them."""
    listed: dict[str, dict[str, Path]] = {}
    seen: set[str] = set()
    for split in splits:
        listed[split] = dict(split_files(folder, split, keep))
        if again := [image for image in listed[split] if image in seen]:
            raise DatasetDamaged(
                f"{split_list(folder, split)} lists {again[0]}, as a split before it in "
                f"{list(splits)} does: name one of the two, or take the image off a list"
            )
        seen.update(listed[split])
    return listed


def _usable(
    folder: Path, files: Mapping[str, Path], classes: Sequence[str], rules: Rules
) -> dict[str, Annotation]:
    """What is said of each image that can be used; raises DatasetDamaged by the rules."""
    found, bad = _annotations(files)
    sizes = {image: annotation.size for image, annotation in found.items()}
    wrong = unusable(sizes, rules.keep, list(files.values()))
    for problem in wrong:
        del found[str(problem.file)]
    bad += wrong
    said = [_unknown(folder, found.values(), classes), _flat(folder, found.values(), rules)]
    if rules.bad_images == "error":
        said.insert(0, told(bad, folder, REMEDY))
    if said := [text for text in said if text]:
        raise DatasetDamaged("; ".join(said))
    warn_of(bad, "images that cannot be used")
    return found


def _annotations(files: Mapping[str, Path]) -> tuple[dict[str, Annotation], list[BadFile]]:
    """What the XML files say by image, and those that cannot be used."""
    found: dict[str, Annotation] = {}
    bad: list[BadFile] = []
    for image, xml in files.items():
        try:
            found[image] = Annotation(xml)
        except BadFile as error:
            bad.append(error)
    return found, bad


def _unknown(folder: Path, annotations: Collection[Annotation], classes: Sequence[str]) -> str:
    """What is said of objects whose class is not among ``classes``; empty where there are none."""
    known = set(classes)
    every = sorted({o.name for each in annotations for o in each.objects if o.name})
    advice = f"known are {', '.join(classes)}: set {quoted_override('dataset.classes', every)}"
    bad = [
        BadFile(each.path, f": object {o.number} is of the unknown class {o.name!r}", advice)
        for each in annotations
        for o in each.objects
        if o.name not in known
    ]
    return told(bad, folder, "", advice)


def _flat(folder: Path, annotations: Collection[Annotation], rules: Rules) -> str:
    """What is said of boxes without area; where they are left out, that is a warning."""
    advice = "correct it, or leave such boxes out with dataset.bad_boxes=drop"
    bad = [
        BadFile(each.path, _no_area(each, o), advice)
        for each in annotations
        for o in each.objects
        if o.flat
    ]
    if rules.bad_boxes == "error":
        return told(bad, folder, "", advice.replace("it", "them", 1))
    warn_of(bad, "boxes without area")
    return ""


def _no_area(annotation: Annotation, each: Object) -> str:
    height, width = annotation.size
    return (
        f": object {each.number} has no area: xmin, ymin, xmax, ymax = "
        f"{', '.join(f'{value:g}' for value in each.corners)} in an image of {width} x {height}"
    )


def _objects(annotation: Annotation) -> list[Object]:
    """Those with an area."""
    return [each for each in annotation.objects if not each.flat]


def _packed(annotations: Mapping[str, Annotation], classes: Sequence[str]) -> Truths:
    numbers = {name: label for label, name in enumerate(classes, 1)}
    objects = [_objects(each) for each in annotations.values()]
    every = [o for each in objects for o in each]
    return Truths(
        torch.tensor([each.size for each in annotations.values()]).view(-1, 2),
        torch.tensor([len(each) for each in objects]),
        torch.tensor([o.box for o in every], dtype=torch.float32).view(-1, 4),
        torch.tensor([numbers[o.name] for o in every], dtype=torch.int64),
        torch.tensor([o.difficult for o in every], dtype=torch.bool),
    )
