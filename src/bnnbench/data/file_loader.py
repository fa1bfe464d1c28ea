"""Batches of image files: worker processes decode, crop and mirror; the device normalises.

The random crop of an image follows (seed, epoch, image) alone, so that neither a resume nor the
numbers of workers and devices change it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image

from bnnbench.data import sharding
from bnnbench.data.sources import DatasetDamaged

Key = tuple[int, int]  # epoch and number of an image
Batch = tuple[Tensor, Tensor]


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Decoded and transformed images of a list of files.

    Args:
        files: paths as bytes (N,): strings would be copied into every worker, one by one.
        labels: int64 (N,).
        transform: of one uint8 image (3, H, W); its random numbers follow (seed, epoch, image).
        seed: not negative.
    """

    def __init__(
        self, files: np.ndarray, labels: Tensor, transform: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        self.files, self.labels, self.transform, self.seed = files, labels, transform, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """Image uint8 (3, size, size) and label; raises DatasetDamaged, which names the file."""
        epoch, index = key
        path = os.fsdecode(self.files[index])
        try:
            image = decode_image(path, mode=ImageReadMode.RGB)
        except RuntimeError as error:
            reason = str(error).rsplit(", ", 1)[-1]
            raise DatasetDamaged(f"{path} cannot be read ({reason}): replace it") from error
        with torch.random.fork_rng(devices=[]):
            # the CPU's generator alone: torch.manual_seed would seed the GPU's as well
            torch.default_generator.manual_seed(sharding.hashed(self.seed, epoch, 1 + index))
            return self.transform(image), int(self.labels[index])


class Plan:
    """The batches of this rank in ``epoch``, as keys of ``ImageFiles``; see ``sharding``."""

    def __init__(
        self, images: int, batch_size: int, train: bool, seed: int, rank: int, world_size: int
    ) -> None:
        self.images, self.batch_size, self.train, self.seed = images, batch_size, train, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self._batches = sharding.count_batches(images, batch_size, world_size, train)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[Key]]:
        rank, ranks = self.rank, self.world_size
        if self.train:
            order = sharding.training_order(self.images, self.seed, self.epoch, rank, ranks)
            batches = order.split(self.batch_size)[: len(self)]
        else:
            batches = torch.arange(rank, self.images, ranks).tensor_split(len(self))
        for batch in batches:
            yield [(self.epoch, index) for index in batch.tolist()]


class FileLoader:
    """Iterates over normalised batches on the device; a pass reads its epoch when it starts.

    Args:
        loader: batches of uint8 images, as ``plan`` lists them.
        plan: told the epoch before each pass.
        mean, std: per channel, of pixels scaled to [0, 1].
        device: where the batches go.
        epoch_fn: the current epoch; without it each pass over the loader is the next epoch.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        loader: DataLoader[tuple[Tensor, int]],
        plan: Plan,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        epoch_fn: Callable[[], int] | None,
        channels_last: bool,
    ) -> None:
        self.loader, self.plan, self.epoch_fn, self.device = loader, plan, epoch_fn, device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        scale = torch.tensor(std, device=device).view(1, -1, 1, 1) * 255
        shift = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
        self._scale, self._shift = 1 / scale, -shift / scale
        self._passes = 0

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Images float (B, 3, size, size) and labels int64 (B,)."""
        # Read with the first batch: a resumed trainer makes its iterator before it knows its epoch,
        # and worker processes read ahead from the moment they have an iterator.
        self.plan.epoch = self.epoch_fn() if self.epoch_fn else self._passes
        self._passes += 1
        for images, labels in self.loader:
            floats = images.to(self.device, non_blocking=True).float()
            floats = floats.mul_(self._scale).add_(self._shift)
            floats = floats.contiguous(memory_format=self.memory_format)
            yield floats, labels.to(self.device, non_blocking=True)


def worker_loader(
    images: ImageFiles, plan: Plan, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of uint8 images, decoded by ``workers`` processes (0: by this one)."""
    return DataLoader(
        images,
        batch_sampler=plan,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else each pass would draw from the global one
    )
