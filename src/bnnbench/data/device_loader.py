"""Batches of a small image set that lives on the device, augmented there in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bnnbench.data import sharding
from bnnbench.data.augmentation import POLICIES, Augmentation, Mixing
from bnnbench.data.resident import Erasing, Policy, ResizedCrop

Batch = tuple[Tensor, Tensor]

CHUNK = 4096  # images that are augmented together where that takes calls of a library


class Drawn(NamedTuple):
    """What an epoch has drawn for each of a rank's images, in their order: first axis (n,).

    Attributes:
        order: numbers of the images.
        starts, flips: pixel at which the crop starts, and whether it is mirrored.
        operations, erased: see ``resident``; on the CPU, None where there are none.
    """

    order: Tensor
    starts: Tensor
    flips: Tensor
    operations: Tensor | None
    erased: Tensor | None

    def part(self, start: int, end: int) -> Drawn:
        """That of some of the images."""
        return Drawn(*(None if tensor is None else tensor[start:end] for tensor in self))  # pyright: ignore[reportArgumentType]


class DeviceLoader:
    """Iterates over normalised batches; shuffling and augmentation follow (seed, epoch, image).

    ``sharding`` says what each rank of a distributed run reads.

    Args:
        images: uint8 (N, C, H, W), on the device.
        labels: int64 (N,), on the device.
        augmentation: how images are normalised, and in training changed.
        batch_size: images a batch and rank; evaluation evens its batches out below this.
        train: shuffle, augment, drop the last short batch (unless it is the only one).
        epoch_fn: the current epoch; without it each pass over the loader is the next epoch.
        seed: what shuffling and augmentation start from, not negative.
        rank, world_size: this process among those that share the set.
        channels_last: memory format of the batches.
        mixing: mixes training images of a batch, whose labels are then shares (N, classes).

    Raises:
        ValueError: fewer images than the ranks need to get one a batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        augmentation: Augmentation,
        batch_size: int,
        train: bool,
        epoch_fn: Callable[[], int] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
        mixing: Mixing | None = None,
    ) -> None:
        self.images, self.labels, self.augmentation = images, labels, augmentation
        self.batch_size, self.train, self.epoch_fn = batch_size, train, epoch_fn
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.mixing = mixing
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._passes = 0
        self._batches = sharding.count_batches(len(labels), batch_size, world_size, train)
        self._crops = bool(augmentation.padding or augmentation.mirrors)
        self._windows = self._crop_windows().to(images.device)
        self._library, self._erasing = _steps(augmentation, images) if train else (None, None)
        scale = torch.tensor(augmentation.std, device=images.device).view(1, -1, 1, 1) * 255
        shift = torch.tensor(augmentation.mean, device=images.device).view(1, -1, 1, 1) * 255
        self._scale, self._shift = 1 / scale, -shift / scale

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        return self._training() if self.train else self._evaluation()

    def _evaluation(self) -> Iterator[Batch]:
        own = slice(self.rank, None, self.world_size)
        images = self.images[own].tensor_split(self._batches)
        labels = self.labels[own].tensor_split(self._batches)
        for part, part_labels in zip(images, labels, strict=True):
            yield self._normalised(part), part_labels

    def _training(self) -> Iterator[Batch]:
        # Read with the first batch: a resumed trainer makes its iterator before it knows its epoch.
        epoch = self.epoch_fn() if self.epoch_fn else self._passes
        self._passes += 1
        drawn, size = self._draw(epoch), self.batch_size
        together = 1 if drawn.operations is None else max(1, CHUNK // size)  # batches
        for first in range(0, self._batches, together):
            last = min(first + together, self._batches)
            chunk = drawn.part(first * size, last * size)
            images = self._augmented(chunk)
            if together == 1:
                yield self._batch(images, chunk, epoch, first)
                continue
            for index in range(last - first):
                ends = index * size, (index + 1) * size
                part = images[slice(*ends)], chunk.part(*ends)
                yield self._batch(*part, epoch, first + index)

    def _draw(self, epoch: int) -> Drawn:
        """Of this rank; drawn on the CPU, once an epoch: the same on every device, and nothing to
        wait for later.

        Every rank draws for the images of all and keeps its own, so that an image is augmented
        alike whatever the number of ranks.
        """
        whole, pad = len(self.labels), self.augmentation.padding
        order = sharding.training_order(whole, self.seed, epoch, self.rank, self.world_size)
        generator = sharding.generator(self.seed, epoch, 1)
        rows, columns = torch.randint(0, 2 * pad + 1, (2, whole), generator=generator)
        flips = torch.randint(0, 2, (whole,), generator=generator)
        starts = rows * (self.images.shape[3] + 2 * pad) + columns
        if not self.augmentation.mirrors:
            flips = torch.zeros_like(flips)
        steps = self._library, self._erasing
        own = slice(self.rank, len(order) * self.world_size, self.world_size)
        rest = (None if step is None else step.draw(whole, generator)[own] for step in steps)
        drawn = (order, starts[own], flips[own])
        return Drawn(*(tensor.to(self.images.device) for tensor in drawn), *rest)

    def _augmented(self, drawn: Drawn) -> Tensor:
        """The images that are drawn, with all that is done to uint8."""
        images = self.images.index_select(0, drawn.order)
        if self._crops:
            images = self._cropped(images, drawn.starts, drawn.flips)
        if self._library is None or drawn.operations is None:
            return images
        return self._library(images, drawn.operations)

    def _batch(self, images: Tensor, drawn: Drawn, epoch: int, index: int) -> Batch:
        """Augmented images normalised, some with a part erased, or mixed; and their labels."""
        floats, labels = self._normalised(images), self.labels.index_select(0, drawn.order)
        if self._erasing is not None and drawn.erased is not None:
            floats = self._erasing(floats, drawn.erased)
        if self.mixing is None:
            return floats, labels
        floats, labels = self.mixing(floats, labels, epoch, index, self.rank)
        return floats.contiguous(memory_format=self.memory_format), labels

    def _crop_windows(self) -> Tensor:
        """Pixel numbers (2, H * W) of a padded image's first crop, and of that crop mirrored."""
        height, width = self.images.shape[2:]
        rows = torch.arange(height) * (width + 2 * self.augmentation.padding)
        window = rows[:, None] + torch.arange(width)  # (H, W)
        return torch.stack((window, window.flip(1))).flatten(1)

    def _cropped(self, images: Tensor, starts: Tensor, flips: Tensor) -> Tensor:
        """Each image cropped at its own start and perhaps mirrored: one gather."""
        count, channels = images.shape[:2]
        pad = self.augmentation.padding
        padded = F.pad(images, (pad,) * 4) if pad else images
        index = self._windows.index_select(0, flips) + starts[:, None]  # (N, H * W)
        index = index[:, None].expand(count, channels, -1)
        return padded.flatten(2).gather(2, index).view_as(images)

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.float().mul_(self._scale).add_(self._shift)
        return floats.contiguous(memory_format=self.memory_format)


def _steps(
    augmentation: Augmentation, images: Tensor
) -> tuple[ResizedCrop | Policy | None, Erasing | None]:
    """What is done beyond crop and flip: by a library to uint8, and to normalised images."""
    size, kind = (images.shape[2], images.shape[3]), augmentation.kind
    library = Policy(kind, size) if kind in POLICIES else None
    if kind == "inception":
        library = ResizedCrop(size)
    return library, Erasing(augmentation.erasing, size) if augmentation.erasing else None
