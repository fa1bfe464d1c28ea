"""What the data modules of all classification sets share: parts, counts, the held-out part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from torch import Tensor

from bnnbench.data.sources import stratified_split


class ClassificationData(L.LightningDataModule):
    """A classification set of the parts ``train``, ``test`` and, where held out, ``val``.

    The headline protocol trains on the whole training set and evaluates on the test set. With
    ``val_fraction`` a stratified part of the training set is held out and evaluated on instead; the
    split is the same for every run.

    Attributes:
        parts: images (in the form of the set) and labels int64 (N,) by part; filled by ``setup``.
    """

    task = "classification"

    def __init__(self, val_fraction: float, seed: int, batch_size: int) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 2, "batch norm needs at least 2 images")
        check_whole("seed", seed, 0, "a seed is not negative")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"dataset.val_fraction={val_fraction} must be in [0, 1)")
        self.val_fraction, self.seed, self.batch_size = val_fraction, seed, batch_size
        self.parts: dict[str, tuple[Any, Tensor]] = {}

    @property
    def evaluates_on(self) -> str:
        """``test``, or ``val`` where a part of the training set is held out."""
        return "val" if self.val_fraction > 0 else "test"

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

    def hold_out(self, images: Any, labels: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """The training set as ``train``, or as ``train`` and ``val``.

        Raises:
            ValueError: ``val_fraction`` would leave one of the two empty.
        """
        if self.val_fraction == 0:
            return {"train": (images, labels)}
        count = round(self.val_fraction * len(labels))
        if not 0 < count < len(labels):
            raise ValueError(
                f"dataset.val_fraction={self.val_fraction} would hold out {count} of "
                f"{len(labels)} training images"
            )
        rest, held_out = stratified_split(labels, count)
        return {
            "train": (images[rest], labels[rest]),
            "val": (images[held_out], labels[held_out]),
        }


def check_normalisation(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse means and deviations that are not one a channel. Raises ValueError."""
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(f"dataset.{key}={list(values)} needs {channels} values, one a channel")
    if min(std) <= 0:
        raise ValueError(f"dataset.std={list(std)} must be positive")


def check_whole(key: str, value: int, least: int, reason: str) -> None:
    """Refuse what is not a whole number of at least ``least``. Raises ValueError."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"dataset.{key}={value}: {reason}")
