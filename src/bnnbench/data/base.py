"""What the data modules of all sets share: parts, counts, the held-out part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from bnnbench.data import resizing
from bnnbench.data.augmentation import Augmentation
from bnnbench.data.sources import stratified_split
from bnnbench.data.spec import ImageSpec


class ImageData(L.LightningDataModule):
    """A set of images with the parts ``train``, ``test`` and, where held out, ``val``.

    The headline protocol trains on the whole training set and evaluates on the test set. With
    ``val_fraction`` a part of the training set is held out and evaluated on instead; the split is
    the same for every run.

    Args:
        spec: what is known of the set before it is read.

    Attributes:
        task: what a network is to do with the images.
        class_names: in the order of their labels; known after ``setup``.
        parts: images and what is known of them, in the form of the set and equally long, by part;
            filled by ``setup``.
    """

    task: str

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.class_names: list[str] = []
        self.parts: dict[str, tuple[Any, Any]] = {}

    @property
    def evaluates_on(self) -> str:
        """``test``, or ``val`` where a part of the training set is held out."""
        return "val" if self.spec.val_fraction > 0 else "test"

    @property
    def train_images(self) -> int:
        """Number of images trained on; known after ``setup``."""
        return len(self.parts["train"][1])

    @property
    def test_images(self) -> int:
        """Number of images in the test set; known after ``setup``."""
        return len(self.parts["test"][1])

    @property
    def eval_images(self) -> int:
        """Number of images that a training is evaluated on; known after ``setup``."""
        return len(self.parts[self.evaluates_on][1])

    @cached_property
    def stamp(self) -> str:
        """``sha256:<hex>`` of the set's content, held-out part included; known after ``setup``."""
        raise NotImplementedError

    def hold_out(self, images: Any, truths: Any) -> dict[str, tuple[Any, Any]]:
        """The training set as ``train``, or as ``train`` and ``val``.

        Both arguments are indexed by int64 tensors.

        Raises:
            ValueError: ``val_fraction`` would leave one of the two empty.
        """
        if self.spec.val_fraction == 0:
            return {"train": (images, truths)}
        count = round(self.spec.val_fraction * len(truths))
        if not 0 < count < len(truths):
            raise ValueError(
                f"dataset.val_fraction={self.spec.val_fraction} would hold out {count} of "
                f"{len(truths)} training images"
            )
        rest, held_out = self.split(truths, count)
        return {
            "train": (images[rest], truths[rest]),
            "val": (images[held_out], truths[held_out]),
        }

    def split(self, truths: Any, count: int) -> tuple[Tensor, Tensor]:
        """Sorted indices of the rest and of a random part of ``count`` images."""
        # numpy guarantees this generator's stream: a split never changes
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(truths)))
        return order[count:].sort().values, order[:count].sort().values


class ClassificationData(ImageData):
    """A classification set: labels int64 (N,) are known, and the held-out part is stratified."""

    task = "classification"
    parts: dict[str, tuple[Any, Tensor]]
    augmentation: Augmentation

    def normalise(self, found: Mapping[str, Sequence[float]], keys: Sequence[str]) -> None:
        """Take the mean or standard deviation that was measured for those ``keys``."""
        own = {key: found[key] for key in keys}
        self.spec = replace(self.spec, **own)
        own = {key: tuple(values) for key, values in own.items()}
        self.augmentation = replace(self.augmentation, **own)

    def class_counts(self) -> Tensor:
        """Number of images of each class that are trained on, (classes,); known after ``setup``."""
        return self.parts["train"][1].cpu().bincount(minlength=self.spec.num_classes)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make training images as small as the epoch wants them."""
        spec, trainer = self.spec, self.trainer
        if not spec.resize or trainer is None or not trainer.training:
            return batch
        images, *rest = batch
        epochs = trainer.max_epochs or 0
        side = resizing.side_at(spec.resize, spec.image_size, trainer.current_epoch, epochs)
        return (resizing.resized(images, side), *rest)

    def split(self, truths: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Sorted indices of the rest and of a part of ``count`` that keeps the classes' shares."""
        return stratified_split(truths, count)
