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
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor
from torchvision.transforms import v2

from bnnbench.data import imagenet, kept, listing, stamp, statistics
from bnnbench.data.augmentation import (
    Augmentation,
    evaluation_transform,
    mixing,
    training_transform,
)
from bnnbench.data.base import ClassificationData
from bnnbench.data.cropped import CroppedFiles
from bnnbench.data.file_data import FileData
from bnnbench.data.file_loader import FileLoader, ImageFiles
from bnnbench.data.known import (
    FOLDERS,
    DatasetDamaged,
    DatasetMissing,
    check_choice,
    data_folder,
    folder_places,
)
from bnnbench.data.spec import CHANNELS, FileSpec, plain, until_measured
from bnnbench.data.survey import check_classes
from bnnbench.data.usable import BAD_IMAGES, sound_parts

log = logging.getLogger(__name__)


class FolderDataModule(FileData, ClassificationData):
    """Images in ``<data_dir>/<folder>/{train,val}/<class>/``; ``val`` is the test set.

    Args:
        folder: an absolute path, or one in ``data_dir`` or in the working folder.
        data_dir: where the sets are.
        augmentation, flip, erasing: see ``Augmentation`` (whose ``kind`` is the first) and
            ``training_transform``.
        mixup, cutmix: see ``Mixing``.
        mean, std: per channel, of pixels scaled to [0, 1]; ``auto`` measures them once on what
            evaluation would see of the training images, and ``spec`` has them after ``setup``.
        bad_images: ``error`` refuses images that cannot be read, ``drop`` leaves them out.
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
        augmentation: str = "inception",
        flip: bool = True,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        erasing: float = 0.0,
        bad_images: str = "error",
        **spec: Any,
    ) -> None:
        self._unmeasured, given = until_measured(CHANNELS, mean, std)
        super().__init__(FileSpec(**given, **spec))
        normalisation = tuple(self.spec.mean), tuple(self.spec.std)
        self.augmentation = Augmentation(
            *normalisation, flip=flip, kind=augmentation, erasing=erasing
        )
        self.mixing = mixing(mixup, cutmix, self.spec.num_classes, self.spec.seed)
        self.folder, self.data_dir = folder, Path(data_dir).expanduser()
        self.root, self.keep = data_folder(folder, data_dir), kept.place(data_dir)
        check_choice("bad_images", bad_images, BAD_IMAGES)
        self.bad_images = bad_images

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
        self.parts = sound_parts(self.listed(), self.root, self.bad_images, self.keep)
        if self._unmeasured:
            self.normalise(self._statistics(), self._unmeasured)

    def listed(self) -> dict[str, tuple[np.ndarray, Tensor]]:
        """The parts of the set; names the classes."""
        for split in FOLDERS.values():
            imagenet.check_sorted(self.root, split)
        classes = {split: class_names(self.root / split) for split in FOLDERS.values()}
        imagenet.check_ids(self.root, classes, self.spec.num_classes)
        check_classes(self.root, classes)
        self.class_names = classes[FOLDERS["train"]]
        self.check_count()
        files = {
            part: list_files(self.root / split, self.class_names) for part, split in FOLDERS.items()
        }
        if imagenet.is_meant(self.class_names, self.spec.num_classes):
            names = {split: files[part][0] for part, split in FOLDERS.items()}
            imagenet.check_images(self.root, names)
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
        seen = evaluation_transform(self.spec.image_size)
        images = ImageFiles(files[chosen.numpy()], labels[chosen], seen, self.spec.seed)
        spec = replace(self.spec, **plain(CHANNELS))
        loader = FileLoader(images, spec, train=False, trainer=None)
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
        size, seed = self.spec.image_size, self.spec.seed
        if not train:
            return ImageFiles(*self.parts[part], evaluation_transform(size), seed)
        transform = training_transform(size, self.augmentation)
        first, *rest = transform.transforms
        if isinstance(first, v2.RandomResizedCrop):
            return CroppedFiles(*self.parts[part], first, v2.Compose(rest or [v2.Identity()]), seed)
        return ImageFiles(*self.parts[part], transform, seed)


def class_names(folder: Path) -> list[str]:
    """The sorted classes of a split. Raises DatasetDamaged if there are none."""
    names = listing.class_names(folder)
    if not names:
        raise DatasetDamaged(
            f"{folder} holds no class folders: it needs {folder.name}/<class>/*.JPEG"
        )
    return names


def list_files(folder: Path, classes: Sequence[str]) -> tuple[np.ndarray, Tensor]:
    """Image files of a split as bytes (N,), class by class, and their labels int64 (N,).

    Files in class folders that are no images are left out with a warning. Raises DatasetDamaged
    where a class has no images, or pictures of a kind that is not read.
    """
    found = listing.class_images(folder)
    listing.check_unread(folder, found)
    if empty := [name for name in classes if not found[name].images]:
        raise DatasetDamaged(f"{folder / empty[0]} holds no image files: fill or delete it")
    if left_out := listing.told(found):
        rank_zero_warn(f"{folder}: {left_out}")
    files = [os.fsencode(os.path.join(folder, i)) for name in classes for i in found[name].images]
    counts = torch.tensor([len(found[name].images) for name in classes])
    return np.array(files), torch.arange(len(classes)).repeat_interleave(counts)
