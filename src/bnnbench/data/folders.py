"""LightningDataModule of image files in class folders, such as ImageNet's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from bnnbench.data.base import ClassificationData, check_normalisation, check_whole
from bnnbench.data.file_loader import FileLoader, ImageFiles, Plan, worker_loader
from bnnbench.data.sources import DatasetDamaged, DatasetMissing

FOLDERS = {"train": "train", "test": "val"}  # ImageNet's labelled validation set is the test set


class FolderDataModule(ClassificationData):
    """Images in ``<data_dir>/<folder>/{train,val}/<class>/``; ``val`` is the test set.

    Args:
        name: of the set, for messages.
        folder: sub-folder of ``data_dir``, or an absolute path.
        data_dir: where the sets are.
        batch_size: training images a step and device.
        num_classes: length of the logits; checked against the class folders.
        in_channels: 3, images are read as RGB.
        image_size: pixels of the square crop: in training a random part of the image, in evaluation
            the centre of the image resized to 256 / 224 of it.
        mean, std: per channel, of pixels scaled to [0, 1].
        workers: processes that decode; ``auto`` shares the CPU's cores among the devices.
        val_fraction: held-out part of the training set, in [0, 1).
        seed: of shuffling and augmentation.
        channels_last: memory format of the batches.
        eval_batch_size: images a step in evaluation.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        data_dir: str | Path,
        batch_size: int,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        workers: int | str = "auto",
        val_fraction: float = 0.0,
        seed: int = 0,
        channels_last: bool = False,
        eval_batch_size: int = 256,
    ) -> None:
        super().__init__(val_fraction, seed, batch_size)
        if in_channels != 3:
            raise ValueError(f"dataset.in_channels={in_channels}: image files are read as RGB, 3")
        check_normalisation(in_channels, mean, std)
        check_whole("image_size", image_size, 1, "use at least 1 pixel")
        check_whole("eval_batch_size", eval_batch_size, 1, "use at least 1")
        if workers != "auto" and (isinstance(workers, str) or workers < 0):
            raise ValueError(f"dataset.workers={workers}: use auto or a number from 0 on")
        self.source, self.root = name, Path(data_dir).expanduser() / Path(folder).expanduser()
        self.num_classes, self.in_channels, self.image_size = num_classes, in_channels, image_size
        self.mean, self.std, self.workers = tuple(mean), tuple(std), workers
        self.eval_batch_size, self.channels_last = eval_batch_size, channels_last

    def prepare_data(self) -> None:
        """Nothing is downloaded: refuse a set that is not there. Raises DatasetMissing."""
        for split in FOLDERS.values():
            if not (self.root / split).is_dir():
                raise DatasetMissing(
                    f"{self.source} has no folder {self.root / split}. Put the images there as "
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
        files = {
            part: list_files(self.root / split, classes[part]) for part, split in FOLDERS.items()
        }
        self.parts = {**self.hold_out(*files["train"]), "test": files["test"]}

    def _check_classes(self, train: list[str], test: list[str]) -> None:
        if only := sorted(set(train) ^ set(test)):
            raise DatasetDamaged(
                f"{self.root}: train has {len(train)} classes and val {len(test)}; only one of "
                f"them has {', '.join(only[:5])}: both need the same class folders"
            )
        if len(train) != self.num_classes:
            raise ValueError(
                f"{self.root} holds {len(train)} classes, dataset.num_classes says "
                f"{self.num_classes}: set dataset.num_classes={len(train)}"
            )

    def _loader(self, part: str, train: bool) -> FileLoader:
        trainer = self.trainer
        images = ImageFiles(*self.parts[part], transform(self.image_size, train), self.seed)
        plan = Plan(
            len(images),
            self.batch_size if train else self.eval_batch_size,
            train,
            self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        epoch_fn = (lambda: trainer.current_epoch) if trainer else None
        loader = worker_loader(images, plan, self._worker_count(), device)
        return FileLoader(loader, plan, self.mean, self.std, device, epoch_fn, self.channels_last)

    def _worker_count(self) -> int:
        if self.workers != "auto":
            return int(self.workers)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, (cores or 1) // (self.trainer.num_devices if self.trainer else 1))

    def train_dataloader(self) -> FileLoader:
        """Shuffled, augmented batches of the training set."""
        return self._loader("train", train=True)

    def val_dataloader(self) -> FileLoader:
        """Batches of the held-out part, or of the test set where nothing is held out."""
        return self._loader(self.evaluates_on, train=False)

    def test_dataloader(self) -> FileLoader:
        """Batches of the whole test set."""
        return self._loader("test", train=False)


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
            if entry.name.lower().endswith(IMG_EXTENSIONS)
        )
        if not found:
            raise DatasetDamaged(f"{folder / name} holds no image files: fill or delete it")
        files += map(os.fsencode, found)
        counts.append(len(found))
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
    return np.array(files), labels
