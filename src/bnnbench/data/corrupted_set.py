"""Corrupted test sets: the published arrays where they lie in the data folder, or made here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bnnbench.data import sources
from bnnbench.data.corruption_names import MAIN, SEVERITIES
from bnnbench.data.corruptions import corrupted
from bnnbench.data.decoding import read_image
from bnnbench.data.folders import class_names, list_files
from bnnbench.data.known import FOLDERS, SOURCES, DatasetDamaged, DatasetMissing

# What is asked for: the clean set, and the folder that the authors' archive unpacks to.
SETS = {
    "digits": ("digits", ""),
    "cifar10c": ("cifar10", "CIFAR-10-C"),
    "cifar100c": ("cifar100", "CIFAR-100-C"),
    "imagenetc": ("imagenet", "ImageNet-C"),
}
SIZE = (224, 224)  # of ImageNet-C's images
ALL = slice(None)
PUBLISHED, GENERATED = "published", "generated"


def corrupted_set(
    name: str,
    data_dir: Path,
    count: int | None = None,
    corruptions: Sequence[str] = MAIN,
    severities: Sequence[int] = SEVERITIES,
) -> ArraySet | FolderSet:
    """A test set with what the corruptions make of it.

    Args:
        name: of ``SETS``.
        data_dir: the data folder.
        count: images, every class in its share; None: all.
        corruptions, severities: what will be asked for, which is checked of published files.

    Raises:
        DatasetMissing: the clean set is not there.
        DatasetDamaged: a published folder lacks arrays, or they are of a wrong size.
        ValueError: more images than there are.
    """
    clean, folder = SETS[name]
    place = data_dir / folder if folder and (data_dir / folder).exists() else None
    if name == "imagenetc":
        return FolderSet(data_dir, place, count, corruptions, severities)
    return ArraySet(clean, data_dir, place, count, corruptions)


def _chosen(labels: Tensor, count: int | None) -> Tensor:
    """Numbers of the images taken, ascending."""
    if count is None or count == len(labels):
        return torch.arange(len(labels))
    if not 0 < count < len(labels):
        raise ValueError(f"images={count}: the test set has {len(labels)}; give 1 to {len(labels)}")
    return sources.stratified_split(labels, count)[1]


class ArraySet:
    """A small test set, an array in memory.

    Attributes:
        source: ``published`` or ``generated``.
        labels: int64 (N,).
    """

    def __init__(
        self,
        name: str,
        data_dir: Path,
        published: Path | None,
        count: int | None,
        corruptions: Sequence[str],
    ) -> None:
        *_, images, labels = sources.read(name, data_dir)
        self.source = GENERATED if published is None else PUBLISHED
        self.total, shape = len(images), SOURCES[name].shape
        self.arrays = {}
        if published is not None:
            self.arrays = _published(published, corruptions, labels, shape)
        self.indices = _chosen(labels, count)
        self.images, self.labels = images[self.indices], labels[self.indices]

    def clean(self, part: slice = ALL) -> Tensor:
        """Images as they are, uint8 (N, C, H, W)."""
        return self.images[part]

    def corrupted(self, name: str, severity: int, part: slice = ALL) -> Tensor:
        """Images with a corruption of a severity, uint8 (N, C, H, W)."""
        indices = self.indices[part]
        if self.arrays:
            found = self.arrays[name][(severity - 1) * self.total + indices.numpy()]
        else:
            pairs = zip(self.clean(part).permute(0, 2, 3, 1).numpy(), indices.tolist(), strict=True)
            found = np.stack([corrupted(image, name, severity, index) for image, index in pairs])
        return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous()


def _published(
    folder: Path, corruptions: Sequence[str], labels: Tensor, shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """The arrays (5 N, H, W, C) by corruption, mapped and not read; all are checked first."""
    files = [f"{name}.npy" for name in (*corruptions, "labels")]
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise DatasetDamaged(
            f"{folder} lacks {', '.join(missing)}: unpack the authors' archive there again, or "
            "move the folder away to have corruptions generated"
        )
    count, (channels, height, width) = len(SEVERITIES) * len(labels), shape
    arrays = {name: _array(folder / f"{name}.npy") for name in (*corruptions, "labels")}
    theirs = arrays.pop("labels")
    if theirs.shape != (count,) or (theirs.reshape(5, -1) != labels.numpy()).any():
        raise DatasetDamaged(
            f"{folder}/labels.npy: not the test set's {len(labels)} labels, five times over; "
            "replace it by the authors' file"
        )
    for name, array in arrays.items():
        if array.dtype != np.uint8 or array.shape != (count, height, width, channels):
            raise DatasetDamaged(
                f"{folder}/{name}.npy must be uint8 {(count, height, width, channels)}, found "
                f"{array.dtype} {array.shape}: replace it by the authors' file"
            )
    return arrays


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = f"{path} cannot be read ({error}): replace it by the authors' file"
        raise DatasetDamaged(reason) from error


class FolderSet:
    """ImageNet's validation images in class folders, and ImageNet-C's folders where those are.

    Images are 224 pixels wide: the centre of the image resized to 256, as the authors cut them.
    """

    def __init__(
        self,
        data_dir: Path,
        published: Path | None,
        count: int | None,
        corruptions: Sequence[str],
        severities: Sequence[int],
    ) -> None:
        self.source = GENERATED if published is None else PUBLISHED
        clean = data_dir / "imagenet" / FOLDERS["test"]
        if not clean.is_dir():
            raise DatasetMissing(f"there is no {clean}: put ImageNet's validation set there")
        classes = class_names(clean)
        files, labels = list_files(clean, classes)
        self.total, self.indices = len(labels), _chosen(labels, count)
        self.files = [Path(os.fsdecode(bytes(files[i]))) for i in self.indices.tolist()]
        self.labels, self.published = labels[self.indices], published
        if published is not None:
            wanted = [(n, s) for n in corruptions for s in severities]
            missing = [p for pair in wanted for p in self._places(*pair) if not p.is_file()]
            if missing:
                raise DatasetDamaged(
                    f"{published} lacks {len(missing)} images, such as {missing[0]}: unpack the "
                    "authors' archive there, or move the folder away to have them generated"
                )
            for pair in wanted:  # the others when they are read
                _published_image(*self._places(*pair, slice(1)))

    def _places(self, name: str, severity: int, part: slice = ALL) -> list[Path]:
        assert self.published is not None
        folder = self.published / name / str(severity)
        return [folder / file.parent.name / file.name for file in self.files[part]]

    def clean(self, part: slice = ALL) -> Tensor:
        """Images as they are, uint8 (N, 3, 224, 224)."""
        return torch.stack([_cut(read_image(str(file))) for file in self.files[part]])

    def corrupted(self, name: str, severity: int, part: slice = ALL) -> Tensor:
        """Images with a corruption of a severity, uint8 (N, 3, 224, 224)."""
        if self.published is not None:
            return torch.stack([_published_image(p) for p in self._places(name, severity, part)])
        pairs = zip(self.files[part], self.indices[part].tolist(), strict=True)
        made = [
            corrupted(_cut(read_image(str(f))).permute(1, 2, 0).numpy(), name, severity, index)
            for f, index in pairs
        ]
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def _published_image(path: Path) -> Tensor:
    image = read_image(str(path))
    if image.shape[1:] != SIZE:
        raise DatasetDamaged(
            f"{path} has {image.shape[1]} x {image.shape[2]} pixels, the authors' images have "
            f"{SIZE[0]} x {SIZE[1]}: unpack their archive there again"
        )
    return image


def _cut(image: Tensor) -> Tensor:
    if image.shape[1:] == SIZE:
        return image
    return F.center_crop(F.resize(image, [256], antialias=True), [224])
