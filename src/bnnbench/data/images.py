"""LightningDataModule of the small image sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnnbench.data import sharding, sources, stamp
from bnnbench.data.augmentation import Augmentation, mixing
from bnnbench.data.base import ClassificationData
from bnnbench.data.device_loader import DeviceLoader
from bnnbench.data.known import SOURCES, check_whole
from bnnbench.data.room import check_fits
from bnnbench.data.spec import ImageSpec


class ImageDataModule(ClassificationData):
    """A small image set, held on the device as uint8.

    Args:
        data_dir: where the set is read from and downloaded to.
        pad, flip, erasing: see ``Augmentation``, whose ``kind`` is ``augmentation``.
        mixup, cutmix: see ``Mixing``.
        eval_batch_size, **spec: see ``ImageSpec``; ``name`` is ``digits``, ``cifar10``,
            ``cifar100`` or ``fashion_mnist``.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(
        self,
        data_dir: str | Path,
        pad: int,
        flip: bool,
        augmentation: str = "crop_flip",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        erasing: float = 0.0,
        eval_batch_size: int = 1000,
        **spec: Any,
    ) -> None:
        super().__init__(ImageSpec(eval_batch_size=eval_batch_size, **spec))
        self.check_set()
        check_whole("pad", pad, 0, "use 0 for no random crop")
        self.data_dir = Path(data_dir).expanduser()
        mean, std = tuple(self.spec.mean), tuple(self.spec.std)
        self.augmentation = Augmentation(mean, std, pad, flip, augmentation, erasing)
        self.mixing = mixing(mixup, cutmix, self.spec.num_classes, self.spec.seed)

    def check_set(self) -> None:
        """Refuse a set that there is not, and numbers that are not its. Raises ValueError."""
        _check_set(self.spec)

    def prepare_data(self) -> None:
        """Download the set unless it is there."""
        sources.download(self.spec.name, self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        """Read the set once and move it to the trainer's device. ValueError without room there."""
        self.parts = self.parts or self._read()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        tensors = [tensor for part in self.parts.values() for tensor in part]
        check_fits(self.spec.name, tensors, device)
        self.parts = {k: (images.to(device), y.to(device)) for k, (images, y) in self.parts.items()}

    def _read(self) -> dict[str, tuple[Tensor, Tensor]]:
        arrays = sources.read(self.spec.name, self.data_dir)
        self.stamp = stamp.of_arrays(arrays)
        self.class_names = list(SOURCES[self.spec.name].names)
        images, labels, test_images, test_labels = arrays
        return {**self.hold_out(images, labels), "test": (test_images, test_labels)}

    def _loader(self, part: str, train: bool) -> DeviceLoader:
        spec, trainer = self.spec, self.trainer
        images, labels = self.parts[part]
        return DeviceLoader(
            images,
            labels,
            self.augmentation,
            batch_size=spec.batch_size if train else spec.eval_batch_size,
            train=train,
            epoch_fn=(lambda: sharding.epoch_of(trainer)) if trainer else None,
            seed=spec.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            channels_last=spec.channels_last,
            mixing=self.mixing,
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

    def predict_dataloader(self) -> DeviceLoader:
        """Batches of the whole test set, for ``trainer.predict``."""
        return self.test_dataloader()


def _check_set(spec: ImageSpec) -> None:
    if spec.name not in SOURCES:
        raise ValueError(f"dataset.name={spec.name}: choose from {', '.join(SOURCES)}")
    source = SOURCES[spec.name]
    shape = spec.in_channels, spec.image_size, spec.image_size
    if (spec.num_classes, shape) != (source.classes, source.shape):
        raise ValueError(
            f"{spec.name} has {source.classes} classes and images of (C, H, W) = {source.shape}; "
            f"dataset.num_classes, in_channels and image_size say {spec.num_classes} and {shape}"
        )
