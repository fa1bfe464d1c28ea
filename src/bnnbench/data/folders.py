"""LightningDataModule of image files in class folders, such as ImageNet's."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from bnnbench.data import kept, stamp
from bnnbench.data.base import ClassificationData
from bnnbench.data.file_data import FileData
from bnnbench.data.file_loader import ImageFiles
from bnnbench.data.known import (
    FOLDERS,
    IMAGE_EXTENSIONS,
    DatasetDamaged,
    DatasetMissing,
    check_choice,
    data_folder,
)
from bnnbench.data.spec import FileSpec
from bnnbench.data.usable import BAD_IMAGES, sound_parts


class FolderDataModule(FileData, ClassificationData):
    """Images in ``<data_dir>/<folder>/{train,val}/<class>/``; ``val`` is the test set.

    Args:
        folder: of the set; see ``data_folder``.
        data_dir: where the sets are.
        bad_images: ``error`` refuses images that cannot be read, ``drop`` leaves them out.
        **spec: see ``FileSpec``. ``num_classes`` is checked against the class folders;
            ``image_size`` is the square crop: in training a random part of the image, in evaluation
            the centre of the image resized to 256 / 224 of it.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(
        self, folder: str, data_dir: str | Path, bad_images: str = "error", **spec: Any
    ) -> None:
        super().__init__(FileSpec(**spec))
        check_choice("bad_images", bad_images, BAD_IMAGES)
        self.root, self.keep = data_folder(folder, data_dir), kept.place(data_dir)
        self.bad_images = bad_images

    def prepare_data(self) -> None:
        """Nothing is downloaded: refuse a set that is not there. Raises DatasetMissing."""
        for split in FOLDERS.values():
            if not (self.root / split).is_dir():
                raise DatasetMissing(
                    f"{self.spec.name} has no folder {self.root / split}. Put the images there as "
                    f"{split}/<class>/*.JPEG, or name the folder that holds train and val with "
                    "dataset.folder=<folder>; data/README.md describes the files"
                )

    def setup(self, stage: str | None = None) -> None:
        """List the files once; raises DatasetMissing, DatasetDamaged or ValueError."""
        if self.parts:
            return
        self.prepare_data()
        classes = {part: class_names(self.root / split) for part, split in FOLDERS.items()}
        self._check_classes(classes["train"], classes["test"])
        self.class_names = classes["train"]
        files = {
            part: list_files(self.root / split, classes[part]) for part, split in FOLDERS.items()
        }
        parts = {**self.hold_out(*files["train"]), "test": files["test"]}
        self.parts = sound_parts(parts, self.root, self.bad_images, self.keep)

    def _check_classes(self, train: list[str], test: list[str]) -> None:
        if only := sorted(set(train) ^ set(test)):
            raise DatasetDamaged(
                f"{self.root}: train has {len(train)} classes and val {len(test)}; only one of "
                f"them has {', '.join(only[:5])}: both need the same class folders"
            )
        if len(train) != self.spec.num_classes:
            raise ValueError(
                f"{self.root} holds {len(train)} classes, dataset.num_classes says "
                f"{self.spec.num_classes}: set dataset.num_classes={len(train)}"
            )

    @cached_property
    def stamp(self) -> str:
        """Names and sizes of the image files."""
        return stamp.of_folders(self.root)

    def files(self, part: str, train: bool) -> ImageFiles:
        """The images of a part with their labels."""
        return ImageFiles(*self.parts[part], transform(self.spec.image_size, train), self.spec.seed)


def transform(size: int, train: bool) -> v2.Transform:
    """A random part of an image, perhaps mirrored; in evaluation its centre. Square, uint8."""
    if train:
        return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
    return v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)])


def class_names(folder: Path) -> list[str]:
    """The sorted class folders of a split. Raises DatasetDamaged if there are none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise DatasetDamaged(
            f"{folder} holds no class folders: it needs {folder.name}/<class>/*.JPEG"
        )
    return names


def list_files(folder: Path, classes: list[str]) -> tuple[np.ndarray, Tensor]:
    """Image files of a split as bytes (N,), class by class, and their labels int64 (N,).

    Raises DatasetDamaged where a class has no images.
    """
    files: list[bytes] = []
    counts = []
    for name in classes:
        found = sorted(
            entry.path
            for entry in os.scandir(folder / name)
            if entry.name.lower().endswith(IMAGE_EXTENSIONS)
        )
        if not found:
            raise DatasetDamaged(f"{folder / name} holds no image files: fill or delete it")
        files += map(os.fsencode, found)
        counts.append(len(found))
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
    return np.array(files), labels
