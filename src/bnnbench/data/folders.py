"""LightningDataModule of image files in class folders, such as ImageNet's."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchvision.transforms import v2

from bnnbench.data import stamp, statistics
from bnnbench.data.base import ClassificationData
from bnnbench.data.file_data import FileData
from bnnbench.data.file_loader import FileLoader, ImageFiles
from bnnbench.data.known import (
    FOLDERS,
    DatasetDamaged,
    DatasetMissing,
    data_folder,
    folder_places,
)
from bnnbench.data.spec import AUTO, FileSpec
from bnnbench.data.survey import check_classes, image_files, subfolders

log = logging.getLogger(__name__)
PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3}  # with these a loader gives pixels as they are


class FolderDataModule(FileData, ClassificationData):
    """Images in ``<data_dir>/<folder>/{train,val}/<class>/``; ``val`` is the test set.

    Args:
        folder: an absolute path, or one in ``data_dir`` or in the working folder.
        data_dir: where the sets are.
        mean, std: per channel, of pixels scaled to [0, 1]; ``auto`` measures them once on what
            evaluation would see of the training images, and ``spec`` has them after ``setup``.
        **spec: see ``FileSpec``. ``num_classes`` is checked against the class folders;
            ``image_size`` is the square crop: in training a random part of the image, in evaluation
            the centre of the image resized to 256 / 224 of it.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(
        self,
        folder: str,
        data_dir: str | Path,
        mean: Sequence[float] | str,
        std: Sequence[float] | str,
        **spec: Any,
    ) -> None:
        given = {"mean": mean, "std": std}
        self._unmeasured = [key for key, value in given.items() if value == AUTO]
        super().__init__(FileSpec(**given | {k: PLAIN[k] for k in self._unmeasured}, **spec))
        self.folder, self.data_dir = folder, Path(data_dir).expanduser()
        self.root = data_folder(folder, data_dir)

    def prepare_data(self) -> None:
        """Nothing is downloaded: refuse a set that is not there. Raises DatasetMissing."""
        places = [self.root] if self.root.exists() else folder_places(self.folder, self.data_dir)
        for split in FOLDERS.values():
            if not (self.root / split).is_dir():
                raise DatasetMissing(
                    f"{self.spec.name} has no folder {' or '.join(f'{p / split}' for p in places)}."
                    f" Put the images there as {split}/<class>/*.JPEG, or name the folder that "
                    "holds train and val with dataset.folder=<folder>; data/README.md describes "
                    "the files"
                )

    def setup(self, stage: str | None = None) -> None:
        """List the files once; raises DatasetMissing, DatasetDamaged or ValueError."""
        if self.parts:
            return
        self.prepare_data()
        self.parts = self.listed()
        if self._unmeasured:
            found = self._statistics()
            self.spec = replace(self.spec, **{key: found[key] for key in self._unmeasured})

    def listed(self) -> dict[str, tuple[np.ndarray, Tensor]]:
        """The parts of the set; names the classes."""
        classes = {split: class_names(self.root / split) for split in FOLDERS.values()}
        check_classes(self.root, classes)
        self.class_names = classes[FOLDERS["train"]]
        self.check_count()
        files = {
            part: list_files(self.root / split, self.class_names) for part, split in FOLDERS.items()
        }
        return {**self.hold_out(*files["train"]), "test": files["test"]}

    def check_count(self) -> None:
        """Refuse a number of classes that is not the folder's. Raises ValueError."""
        if (count := len(self.class_names)) != self.spec.num_classes:
            raise ValueError(
                f"{self.root} holds {count} classes, dataset.num_classes says "
                f"{self.spec.num_classes}: set dataset.num_classes={count}"
            )

    @property
    def measured_of(self) -> dict[str, Any]:
        """What tells which of the set's images are trained on, and how they are seen."""
        part = self.spec.val_fraction
        return {"root": str(self.root), "size": self.spec.image_size, "val_fraction": part}

    def _statistics(self) -> statistics.Statistics:
        """Mean and standard deviation of training images as evaluation would see them."""
        chosen = statistics.sample(self.train_images)
        files, labels = self.parts["train"]
        # the stamp knows names and sizes alone, and bitmaps of one set may be as long as another's
        times = [os.stat(file).st_mtime_ns for file in files[chosen.numpy()]]
        key = statistics.key_of(stamp=self.stamp, times=times, **self.measured_of)
        if (known := statistics.read(self.data_dir, key)) is not None:
            return known
        seen = transform(self.spec.image_size, train=False)
        images = ImageFiles(files[chosen.numpy()], labels[chosen], seen, self.spec.seed)
        loader = FileLoader(images, replace(self.spec, **PLAIN), train=False, trainer=None)
        try:
            found = statistics.of_batches(images for images, _ in loader)
        finally:
            loader.close()
        statistics.keep(self.data_dir, key, found)
        rank_zero_only(log.info)(
            "%s: mean %s and std %s, measured on %d training images",
            *(self.spec.name, found["mean"], found["std"], len(chosen)),
        )
        return found

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
    names = subfolders(folder)
    if not names:
        raise DatasetDamaged(
            f"{folder} holds no class folders: it needs {folder.name}/<class>/*.JPEG"
        )
    return names


def list_files(folder: Path, classes: Sequence[str]) -> tuple[np.ndarray, Tensor]:
    """Image files of a split as bytes (N,), class by class, and their labels int64 (N,).

    Raises DatasetDamaged where a class has no images.
    """
    files: list[bytes] = []
    counts = []
    for name in classes:
        found = [entry.path for entry in image_files(folder / name)]
        if not found:
            raise DatasetDamaged(f"{folder / name} holds no image files: fill or delete it")
        files += map(os.fsencode, found)
        counts.append(len(found))
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
    return np.array(files), labels
