"""LightningDataModule of the small image sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bnnbench.data import sources, stamp
from bnnbench.data.base import ClassificationData, check_normalisation
from bnnbench.data.device_loader import Augmentation, DeviceLoader
from bnnbench.data.known import SOURCES, check_whole


class ImageDataModule(ClassificationData):
    """A small image set, held on the device as uint8.

    Args:
        name: ``digits``, ``cifar10``, ``cifar100`` or ``fashion_mnist``.
        data_dir: where the set is read from and downloaded to.
        batch_size: training images a step and device.
        num_classes, in_channels, image_size: what a network needs to know; checked against the set.
        mean, std, pad, flip: see ``Augmentation``.
        val_fraction: held-out part of the training set, in [0, 1).
        seed: what shuffling and augmentation start from.
        channels_last: memory format of the batches.
        eval_batch_size: images a step in evaluation.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(
        self,
        name: str,
        data_dir: str | Path,
        batch_size: int,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        pad: int,
        flip: bool,
        val_fraction: float,
        seed: int,
        channels_last: bool = False,
        eval_batch_size: int = 1000,
    ) -> None:
        super().__init__(val_fraction, seed, batch_size)
        _check_set(name, num_classes, (in_channels, image_size, image_size))
        check_normalisation(in_channels, mean, std)
        check_whole("eval_batch_size", eval_batch_size, 1, "use at least 1")
        check_whole("pad", pad, 0, "use 0 for no random crop")
        self.source, self.data_dir = name, Path(data_dir).expanduser()
        self.num_classes, self.in_channels, self.image_size = num_classes, in_channels, image_size
        self.eval_batch_size, self.channels_last = eval_batch_size, channels_last
        self.augmentation = Augmentation(tuple(mean), tuple(std), pad, flip)

    def prepare_data(self) -> None:
        """Download the set unless it is there."""
        sources.download(self.source, self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        """Read the set once and move it to the trainer's device."""
        self.parts = self.parts or self._read()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self.parts = {k: (images.to(device), y.to(device)) for k, (images, y) in self.parts.items()}

    def _read(self) -> dict[str, tuple[Tensor, Tensor]]:
        arrays = sources.read(self.source, self.data_dir)
        self.stamp = stamp.of_arrays(arrays)
        self.class_names = list(SOURCES[self.source].names)
        images, labels, test_images, test_labels = arrays
        return {**self.hold_out(images, labels), "test": (test_images, test_labels)}

    def _loader(self, part: str, train: bool) -> DeviceLoader:
        trainer = self.trainer
        images, labels = self.parts[part]
        return DeviceLoader(
            images,
            labels,
            self.augmentation,
            batch_size=self.batch_size if train else self.eval_batch_size,
            train=train,
            epoch_fn=(lambda: trainer.current_epoch) if trainer else None,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            channels_last=self.channels_last,
        )

    def train_dataloader(self) -> DeviceLoader:
        """Shuffled, augmented batches of the training set."""
        return self._loader("train", train=True)

    def val_dataloader(self) -> DeviceLoader:
        """Batches of the held-out part, or of the test set where nothing is held out."""
        return self._loader(self.evaluates_on, train=False)

    def test_dataloader(self) -> DeviceLoader:
        """Batches of the whole test set."""
        return self._loader("test", train=False)


def _check_set(name: str, num_classes: int, shape: tuple[int, int, int]) -> None:
    if name not in SOURCES:
        raise ValueError(f"dataset.name={name}: choose from {', '.join(SOURCES)}")
    source = SOURCES[name]
    if (num_classes, shape) != (source.classes, source.shape):
        raise ValueError(
            f"{name} has {source.classes} classes and images of (C, H, W) = {source.shape}; "
            f"dataset.num_classes, in_channels and image_size say {num_classes} and {shape}"
        )
