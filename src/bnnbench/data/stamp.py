"""Stamps of a data set's content: equal where a run would see the same images and labels.

A small set is told by its decoded arrays, whatever form its files have. A folder is told by names
and sizes of its files, relative to it, so that it may move; to read a million images would take an
hour. How the set is parted or augmented is a matter of the config.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnnbench.data.known import FOLDERS, DatasetDamaged
from bnnbench.data.listing import class_images
from bnnbench.data.voc_tree import split_files

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("train images", "train labels", "test images", "test labels")


def of_arrays(arrays: Sequence[Tensor]) -> str:
    """Stamp of a small set: training images and labels, test images and labels, on the CPU."""
    digest = hashlib.sha256()
    for part, tensor in zip(PARTS, arrays, strict=True):
        array = tensor.contiguous().numpy()
        digest.update(f"{part} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return f"sha256:{digest.hexdigest()}"


def of_folders(root: Path, splits: Sequence[str] = tuple(FOLDERS.values())) -> str:
    """Stamp of class folders: the image files of all splits, of ``root`` itself where one is "".

    Raises FileNotFoundError where a split is not there, DatasetDamaged where an image is not.
    """
    return _of_lines(_class_folders(root, splits))


def of_trees(root: Path, splits: Mapping[str, Sequence[str]], keep: Path | None = None) -> str:
    """Stamp of splits in VOC's layout: image and XML file of each listed image, in that order.

    Args:
        root: that the trees lie in, or the one tree.
        splits: ``<tree>/<split>`` or ``<split>``, by part of the set.
        keep: where lists lie that may not be written into their tree.

    Raises:
        DatasetMissing, DatasetDamaged: as ``voc_tree.split_files``.
    """
    return _of_lines(_trees(root, splits, keep))


def _of_lines(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(line) + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _class_folders(root: Path, splits: Sequence[str]) -> Iterator[str]:
    for split in splits:
        for name, listing in class_images(root / split).items():
            for image in listing.images:
                # an image of a list of annotations as if it were in a folder of its class
                place = image if image.startswith(f"{name}/") else f"{name}/{image}"
                yield f"{split}/{place} {_size(f'{root}{os.sep}{split}{os.sep}{image}')}"


def _trees(root: Path, splits: Mapping[str, Sequence[str]], keep: Path | None) -> Iterator[str]:
    root = root.absolute()
    inside = len(str(root)) + 1  # pathlib takes ten times as long to tell what is relative
    for part, names in splits.items():
        for split in names:
            yield f"{part} {split}"
            for pair in split_files(root, split, keep):
                for file in map(str, pair):
                    yield f"{file[inside:].replace(os.sep, '/')} {_size(file)}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError as error:  # its name was just read
        raise DatasetDamaged(f"{path} is a link that leads nowhere: mend or delete it") from error
