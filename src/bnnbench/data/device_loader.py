"""Batches of a small image set that lives on the device, augmented there in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


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

    Every rank of a distributed run reads its own part: in training all ranks get equally many
    batches, in evaluation each image is read exactly once.

    Args:
        images: uint8 (N, C, H, W), on the device.
        labels: int64 (N,), on the device.
        augmentation: how a batch is normalised, cropped and flipped.
        batch_size: images a batch and rank.
        train: shuffle, augment, drop the last short batch (unless it is the only one).
        epoch_fn: the current epoch.
        seed: of shuffling and augmentation.
        rank, world_size: this process among those that share the set.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        augmentation: Augmentation,
        batch_size: int,
        train: bool,
        epoch_fn: Callable[[], int] = lambda: 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
    ) -> None:
        self.images, self.labels, self.augmentation = images, labels, augmentation
        self.batch_size, self.train, self.epoch_fn = batch_size, train, epoch_fn
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        shape = (1, -1, 1, 1)
        scale = torch.tensor(augmentation.std, device=images.device) * 255
        shift = torch.tensor(augmentation.mean, device=images.device) * 255
        self._scale, self._shift = (1 / scale).view(shape), (-shift / scale).view(shape)

    @property
    def _share(self) -> int:
        """Images of this rank in one epoch."""
        total = len(self.labels)
        return total // self.world_size if self.train else len(range(self.rank, total, self.world_size))

    def __len__(self) -> int:
        if self.train:
            return max(1, self._share // self.batch_size)
        return -(-self._share // self.batch_size)

    def _generator(self, rank: int) -> torch.Generator:
        mixed = (self.seed * 1_000_003 + self.epoch_fn()) * 1_009 + rank
        return torch.Generator().manual_seed(mixed % 2**63)

    def _order(self) -> Tensor:
        """Indices of this rank's images; in training all ranks cut one common permutation."""
        total = len(self.labels)
        if not self.train:
            return torch.arange(self.rank, total, self.world_size)
        order = torch.randperm(total, generator=self._generator(rank=0))
        return order[self.rank : self._share * self.world_size : self.world_size]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order().to(self.images.device)
        generator = self._generator(rank=self.rank + 1)
        for index in range(len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            images = self.images[chosen]
            if self.train:
                images = self._augmented(images, generator)
            yield self._normalised(images), self.labels[chosen]

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.float().mul_(self._scale).add_(self._shift)
        return floats.contiguous(memory_format=self.memory_format)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Each image cropped at its own offset and perhaps mirrored: one gather."""
        count, channels, height, width = images.shape
        pad, device = self.augmentation.pad, images.device
        offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(device)
        flips = (torch.rand(count, generator=generator) < 0.5).to(device)
        rows = offsets[0, :, None] + torch.arange(height, device=device)  # (N, H)
        columns = torch.arange(width, device=device).expand(count, width)
        if self.augmentation.flip:
            columns = torch.where(flips[:, None], width - 1 - columns, columns)
        columns = offsets[1, :, None] + columns  # (N, W)
        if pad:
            images = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        width = images.shape[-1]
        index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
        index = index.expand(-1, channels, -1)
        return images.flatten(2).gather(2, index).unflatten(2, (rows.shape[1], columns.shape[1]))
