"""Batches of a small image set that lives on the device, augmented there in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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

    Every rank of a distributed run reads its own part and gets equally many batches, because DDP
    synchronises buffers in each forward. In training all ranks cut one permutation, so that W ranks
    with batches of B take the same images a step as one rank with batches of W * B. In evaluation
    each image is read exactly once.

    Args:
        images: uint8 (N, C, H, W), on the device.
        labels: int64 (N,), on the device.
        augmentation: how a batch is normalised, cropped and flipped.
        batch_size: images a batch and rank; evaluation evens its batches out below this.
        train: shuffle, augment, drop the last short batch (unless it is the only one).
        epoch_fn: the current epoch; without it each pass over the loader is the next epoch.
        seed: of shuffling and augmentation, not negative.
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
        self._batches = self._count_batches()
        self._windows = self._crop_windows().to(images.device)
        scale = torch.tensor(augmentation.std, device=images.device).view(1, -1, 1, 1) * 255
        shift = torch.tensor(augmentation.mean, device=images.device).view(1, -1, 1, 1) * 255
        self._scale, self._shift = 1 / scale, -shift / scale

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        return self._training() if self.train else self._evaluation()

    def _count_batches(self) -> int:
        total = len(self.labels)
        least, most = total // self.world_size, -(-total // self.world_size)  # images of a rank
        batches = max(1, least // self.batch_size) if self.train else -(-most // self.batch_size)
        if least < (1 if self.train else batches):
            raise ValueError(
                f"{total} images are too few for {self.world_size} processes with batches of "
                f"{self.batch_size}: use fewer devices or another batch size"
            )
        return batches

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
        share = len(self.labels) // self.world_size
        order = torch.randperm(len(self.labels), generator=self._generator(epoch, 0))
        order = order[self.rank : share * self.world_size : self.world_size]
        generator = self._generator(epoch, 1 + self.rank)
        pad = self.augmentation.pad
        rows, columns = torch.randint(0, 2 * pad + 1, (2, share), generator=generator)
        flips = torch.randint(0, 2, (share,), generator=generator)
        starts = rows * (self.images.shape[3] + 2 * pad) + columns
        return order, starts, flips if self.augmentation.flip else torch.zeros_like(flips)

    def _generator(self, epoch: int, stream: int) -> torch.Generator:
        # torch keeps 32 bits of a seed: hash, or neighbouring seeds and epochs could share them
        state = np.random.SeedSequence((self.seed, epoch, stream)).generate_state(1)
        return torch.Generator().manual_seed(int(state[0]))

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
