"""Batches of image files: worker processes decode and augment; the device normalises.

The random augmentation of an image follows (seed, epoch, image) alone, so that neither a resume nor
the numbers of workers and devices change it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bnnbench.cores import cores
from bnnbench.data import sharding
from bnnbench.data.augmentation import Mixing
from bnnbench.data.decoding import decode
from bnnbench.data.headers import check_image
from bnnbench.data.known import JOBS, DatasetDamaged
from bnnbench.data.spec import FileSpec

# Named, because in a joblib worker the default is joblib's, whose processes lack what these need.
CONTEXT = "fork" if sys.platform == "linux" else "spawn"

# The size of an image is kept as one number, which a process writes at once.
WIDEST = 2**31
OTHER = -1  # in its place of an image that torchvision does not decode

Key = tuple[int, int]  # epoch and number of an image
Batch = tuple[Tensor, Any]  # images and what is known of them
Transform = Callable[[Tensor, Any], tuple[Tensor, Any]]


class ImageFiles(Dataset[tuple[Tensor, Any]]):
    """Decoded and transformed images of a list of files.

    Args:
        files: paths as bytes (N,): strings would be copied into every worker, one by one.
        truths: what is known of the images: labels int64 (N,), or what ``truth`` reads.
        transform: applied to a uint8 image (3, H, W) together with what is known of it; its random
            numbers follow (seed, epoch, image).
        seed: not negative.
    """

    def __init__(self, files: np.ndarray, truths: Any, transform: Transform, seed: int) -> None:
        self.files, self.truths, self.transform, self.seed = files, truths, transform, seed
        # What headers say, 0 until one is looked at; worker processes tell one another.
        self._sizes = torch.zeros(len(files), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        """Image uint8 (3, size, size) and truth; raises DatasetDamaged, which names the file."""
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            self.seeded(epoch, index)
            try:
                image = self.picture(index)
            except (ValueError, FileNotFoundError) as error:
                raise self.damaged(index, error) from error
            return self.transform(image, self.truth(index, image))

    def seeded(self, epoch: int, index: int) -> None:
        """Start the random numbers of an image in an epoch."""
        # the CPU's generator alone: torch.manual_seed would seed the GPU's as well
        torch.default_generator.manual_seed(sharding.hashed(self.seed, epoch, 1 + index))

    def damaged(self, index: int, error: Exception) -> DatasetDamaged:
        """The error of an image that is gone or cannot be read, with its name."""
        path = os.fsdecode(self.files[index])
        if not os.path.exists(path):
            return DatasetDamaged(gone(path))
        return DatasetDamaged(f"{path} cannot be read ({error}): replace it")

    def picture(self, index: int) -> Tensor:
        """An image as uint8 (3, H, W). Raises ValueError with a reason."""
        return decode(os.fsdecode(self.files[index]), self.plain_size(index) is not None)

    def plain_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of an image that torchvision decodes, None of another.

        Its header is looked at once. Raises ValueError, which says what is wrong with that.
        """
        size = int(self._sizes[index])
        if not size:
            header = check_image(os.fsdecode(self.files[index]))
            size = header.height * WIDEST + header.width if header.plain else OTHER
            self._sizes[index] = size
        return None if size == OTHER else divmod(size, WIDEST)

    def collate(self, examples: list[Any]) -> Batch:
        """Images as one tensor uint8 (B, 3, H, W), channels last as decoders write them."""
        images, truths = zip(*examples, strict=True)
        rows = default_collate([image.permute(1, 2, 0) for image in images])
        return rows.permute(0, 3, 1, 2), default_collate(list(truths))

    def truth(self, index: int, image: Tensor) -> Any:
        """What is known of an image, here its label."""
        return int(self.truths[index])

    def unpack(self, truths: Any) -> Any:
        """What a batch holds of the truths that ``collate`` made, moved to the device."""
        return truths


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
        images: the files, and what is known of them.
        spec: batch sizes a rank (evaluation evens its batches out below its own), normalisation,
            memory format, and the processes that decode.
        train: shuffle, drop the last short batch (unless it is the only one).
        trainer: knows the device, the ranks and the epoch; without one each pass over the loader is
            the next epoch, on one CPU.
        mixing: mixes images of a batch, whose labels are then shares (B, classes).

    Raises:
        ValueError: fewer images than the ranks need to get one a batch.
    """

    def __init__(
        self,
        images: ImageFiles,
        spec: FileSpec,
        train: bool,
        trainer: L.Trainer | None,
        mixing: Mixing | None = None,
    ) -> None:
        ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        self.images, self.trainer, self.mixing = images, trainer, mixing
        batch_size = spec.batch_size if train else spec.eval_batch_size
        self.plan = Plan(len(images), batch_size, train, images.seed, *ranks)
        self.device = trainer.strategy.root_device if trainer else torch.device("cpu")
        self.loader = worker_loader(
            images, self.plan, worker_count(spec.workers, trainer), self.device
        )
        self.memory_format = torch.channels_last if spec.channels_last else torch.contiguous_format
        scale = torch.tensor(spec.std, device=self.device).view(1, -1, 1, 1) * 255
        shift = torch.tensor(spec.mean, device=self.device).view(1, -1, 1, 1) * 255
        self._scale, self._shift = 1 / scale, -shift / scale
        self._passes = 0

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Images float (B, 3, size, size) and what is known of them, labels int64 (B,) say."""
        # Read with the first batch: a resumed trainer makes its iterator before it knows its epoch,
        # and worker processes read ahead from the moment they have an iterator.
        self.plan.epoch = epoch = sharding.epoch_of(self.trainer) if self.trainer else self._passes
        self._passes += 1
        for index, (images, truths) in enumerate(_in_a_line(self.loader)):
            batch = self._normalised(images), self._moved(truths)
            yield batch if self.mixing is None else self._mixed(*batch, epoch, index)

    def _mixed(self, images: Tensor, labels: Tensor, epoch: int, index: int) -> Batch:
        assert self.mixing is not None
        images, labels = self.mixing(images, labels, epoch, index, self.plan.rank)
        return images.contiguous(memory_format=self.memory_format), labels

    def close(self) -> None:
        """End the worker processes; a later pass starts new ones.

        Left to the garbage collector, it takes 5 seconds a worker: their queues are collected first
        and the message to end does not reach them.
        """
        iterator, self.loader._iterator = self.loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.to(self.device, non_blocking=True).float()
        floats = floats.mul_(self._scale).add_(self._shift)
        return floats.contiguous(memory_format=self.memory_format)

    def _moved(self, truths: Any) -> Any:
        return self.images.unpack(move_data_to_device(truths, self.device))


def gone(path: str) -> str:
    """What is told of a file that was there when the set was read: it, or the folder that went."""
    place = Path(path)
    above = [folder for folder in place.parents if not folder.exists()]
    what = f"{above[-1]} is gone" if above else f"{place} is gone"
    return f"{what} since this process began: bring it back, and the same command goes on"


def _in_a_line(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; of what a worker meets its message alone, where torch tells its traceback."""
    try:
        yield from batches
    except DatasetDamaged as error:
        last = str(error).strip().splitlines()[-1]
        text = last.removeprefix(f"{DatasetDamaged.__module__}.{DatasetDamaged.__name__}: ")
        raise DatasetDamaged(text) from error


def worker_count(workers: int | str, trainer: L.Trainer | None) -> int:
    """``workers``, or for ``auto`` this device's share of the CPU's cores.

    A sweep's jobs that run side by side share them too.
    """
    if workers != "auto":
        return int(workers)
    sharing = (trainer.num_devices if trainer else 1) * int(os.environ.get(JOBS, 1))
    return max(1, cores() // sharing)


def worker_loader(
    images: ImageFiles, plan: Plan, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, Any]]:
    """Batches of uint8 images, decoded by ``workers`` processes (0: by this one)."""
    return DataLoader(
        images,
        batch_sampler=plan,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        multiprocessing_context=CONTEXT if workers else None,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=images.collate,
        generator=torch.Generator(),  # else each pass would draw from the global one
    )
