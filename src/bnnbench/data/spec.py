"""What every data module is told of its images, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnnbench.data import resizing
from bnnbench.data.known import check_whole

CHANNELS = 3  # of image files, which are read as RGB
AUTO = "auto"  # a mean or standard deviation that a data module measures itself

Given = Sequence[float] | str  # a mean or standard deviation as it is typed


def plain(channels: int) -> dict[str, list[float]]:
    """The mean and standard deviation that leave pixels as they are."""
    return {"mean": [0.0] * channels, "std": [1.0] * channels}


def until_measured(channels: int, mean: Given, std: Given) -> tuple[list[str], dict[str, Any]]:
    """Which of the two are ``auto``, and both with what leaves pixels as they are in its place."""
    given = {"mean": mean, "std": std}
    unmeasured = [key for key, value in given.items() if value == AUTO]
    return unmeasured, given | {key: plain(channels)[key] for key in unmeasured}


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """A set of images as networks and loaders see it: the keys that all yaml files share.

    Attributes:
        name: the set's, for messages.
        num_classes: length of the logits, without background.
        in_channels: channels of an image.
        image_size: pixels of the square image that a network sees.
        mean, std: per channel, of pixels scaled to [0, 1].
        batch_size: training images a step and device.
        seed: what shuffling and augmentation start from.
        val_fraction: held-out part of the training set, in [0, 1).
        channels_last: memory format of the batches.
        eval_batch_size: images a step and device in evaluation.
        class_weights: how much images of each class count in a classifier's training loss.
        resize: of a classifier's training images: part of the side and until which part of the
            epochs, in order; see ``resizing``.

    Raises:
        ValueError: a value out of range.
    """

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    seed: int
    val_fraction: float = 0.0
    channels_last: bool = False
    eval_batch_size: int = 256
    class_weights: str | Sequence[float] | None = None
    resize: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 2, "batch norm needs at least 2 images")
        check_whole("eval_batch_size", self.eval_batch_size, 1, "use at least 1")
        check_whole("image_size", self.image_size, 1, "use at least 1 pixel")
        check_whole("seed", self.seed, 0, "a seed is not negative")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"dataset.val_fraction={self.val_fraction} must be in [0, 1)")
        if not resizing.is_schedule(self.resize):
            raise ValueError(f"dataset.resize={self.resize}: give {resizing.ADVICE}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, str):
                raise ValueError(
                    f"dataset.{key}={values}: give a list of {self.in_channels}, one a channel; "
                    f"{self.name} is not measured"
                )
            if len(values) != self.in_channels:
                raise ValueError(
                    f"dataset.{key}={list(values)} needs {self.in_channels} values, one a channel"
                )
        if min(self.std) <= 0:
            raise ValueError(f"dataset.std={list(self.std)} must be positive")


@dataclass(frozen=True, kw_only=True)
class FileSpec(ImageSpec):
    """A set of image files, decoded in each epoch.

    Attributes:
        workers: processes that decode (0: this one); ``auto`` shares the CPU's cores among the
            devices.

    Raises:
        ValueError: a value out of range.
    """

    workers: int | str = "auto"

    def __post_init__(self) -> None:
        if self.in_channels != CHANNELS:
            raise ValueError(
                f"dataset.in_channels={self.in_channels}: image files are read as RGB, {CHANNELS}"
            )
        super().__post_init__()
        if self.workers != "auto" and (isinstance(self.workers, str) or self.workers < 0):
            raise ValueError(f"dataset.workers={self.workers}: use auto or a number from 0 on")
