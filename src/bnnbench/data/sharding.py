"""Which rank reads which image when: from (seed, epoch, rank) alone, so that a resume is exact.

In training all ranks cut one permutation, so that W ranks with batches of B take the same images a
step, augmented alike, as one rank with batches of W * B. In evaluation each image is read exactly
once, and every rank gets equally many batches, because DDP synchronises buffers in each forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning import Trainer


def count_batches(images: int, batch_size: int, world_size: int, train: bool) -> int:
    """Batches of one epoch, the same on every rank.

    Training drops the last short batch, unless it is the only one.

    Raises:
        ValueError: fewer images than the ranks need to get one a batch.
    """
    least, most = images // world_size, -(-images // world_size)  # images of a rank
    batches = max(1, least // batch_size) if train else -(-most // batch_size)
    if least < (1 if train else batches):
        raise ValueError(
            f"{images} images are too few for {world_size} processes with batches of "
            f"{batch_size}: use fewer devices or another batch size"
        )
    return batches


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """The random numbers of one epoch; stream 0 is the order, others are augmentation."""
    return torch.Generator().manual_seed(hashed(seed, epoch, stream))


def hashed(seed: int, epoch: int, stream: int, *more: int) -> int:
    """A 32-bit seed; torch keeps no more, and neighbouring seeds and epochs must not share it.

    ``more`` must not end in 0, which would be the seed without it.
    """
    return int(np.random.SeedSequence((seed, epoch, stream, *more)).generate_state(1)[0])


def training_order(images: int, seed: int, epoch: int, rank: int, world_size: int) -> Tensor:
    """The images of a rank in the order of an epoch, int64 (images // world_size,)."""
    share = images // world_size
    order = torch.randperm(images, generator=generator(seed, epoch, 0))
    return order[rank : share * world_size : world_size]


def epoch_of(trainer: Trainer) -> int:
    """The epoch that a trainer's pass is drawn for.

    With ``overfit_batches`` it is the first one every time: a network is to fit the same images,
    augmented in the same way.
    """
    overfit = trainer.overfit_batches  # pyright: ignore[reportAttributeAccessIssue]
    return 0 if overfit else trainer.current_epoch
