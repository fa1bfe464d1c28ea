"""Batches of a small image set that lives on the device, augmented there in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bnnbench.data import sharding

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Augmentation:
    """Normalisation, and for training a random crop of the padded image and a horizontal flip.

    Attributes:
        mean, std: per channel, of pixels scaled to [0, 1].
        pad: zero pixels (before normalisation) on each side of the image that is then cropped.
        flip: mirror each image with probability 1/2.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False


class DeviceLoader:
    """Iterates over normalised batches; shuffling and augmentation follow (seed, epoch, rank).

    ``sharding`` says what each rank of a distributed run reads.

    Args:
        images: uint8 (N, C, H, W), on the device.
        labels: int64 (N,), on the device.
        augmentation: how a batch is normalised, cropped and flipped.
        batch_size: images a batch and rank; evaluation evens its batches out below this.
        train: shuffle, augment, drop the last short batch (unless it is the only one).
        epoch_fn: the current epoch; without it each pass over the loader is the next epoch.
        seed: what shuffling and augmentation start from, not negative.
        rank, world_size: this process among those that share the set.
        channels_last: memory format of the batches.

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
    ) -> None:
        self.images, self.labels, self.augmentation = images, labels, augmentation
        self.batch_size, self.train, self.epoch_fn = batch_size, train, epoch_fn
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._passes = 0
        self._batches = sharding.count_batches(len(labels), batch_size, world_size, train)
        self._windows = self._crop_windows().to(images.device)
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
        device = self.images.device
        # Read with the first batch: a resumed trainer makes its iterator before it knows its epoch.
        epoch = self.epoch_fn() if self.epoch_fn else self._passes
        self._passes += 1
        # Drawn on the CPU, once an epoch: the same on every device, and nothing to wait for later.
        order, starts, flips = (tensor.to(device) for tensor in self._draw(epoch))
        for index in range(self._batches):
            part = slice(index * self.batch_size, (index + 1) * self.batch_size)
            images = self.images.index_select(0, order[part])
            if self.augmentation.pad or self.augmentation.flip:
                images = self._cropped(images, starts[part], flips[part])
            yield self._normalised(images), self.labels.index_select(0, order[part])

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's images, and where each one's crop starts and whether it is mirrored: (n,)."""
        ranks = self.rank, self.world_size
        order = sharding.training_order(len(self.labels), self.seed, epoch, *ranks)
        share, pad = len(order), self.augmentation.pad
        generator = sharding.generator(self.seed, epoch, 1 + self.rank)
        rows, columns = torch.randint(0, 2 * pad + 1, (2, share), generator=generator)
        flips = torch.randint(0, 2, (share,), generator=generator)
        starts = rows * (self.images.shape[3] + 2 * pad) + columns
        return order, starts, flips if self.augmentation.flip else torch.zeros_like(flips)

    def _crop_windows(self) -> Tensor:
        """Pixel numbers (2, H * W) of a padded image's first crop, and of that crop mirrored."""
        height, width = self.images.shape[2:]
        rows = torch.arange(height) * (width + 2 * self.augmentation.pad)
        window = rows[:, None] + torch.arange(width)  # (H, W)
        return torch.stack((window, window.flip(1))).flatten(1)

    def _cropped(self, images: Tensor, starts: Tensor, flips: Tensor) -> Tensor:
        """Each image cropped at its own start and perhaps mirrored: one gather."""
        count, channels = images.shape[:2]
        padded = F.pad(images, (self.augmentation.pad,) * 4) if self.augmentation.pad else images
        index = self._windows.index_select(0, flips) + starts[:, None]  # (N, H * W)
        index = index[:, None].expand(count, channels, -1)
        return padded.flatten(2).gather(2, index).view_as(images)

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.float().mul_(self._scale).add_(self._shift)
        return floats.contiguous(memory_format=self.memory_format)
