"""Images that every machine makes alike, and what a network said of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

KEPT = 16  # numbers of an output that a file keeps


def check_images(size: Sequence[int], count: int, seed: int = 0) -> Tensor:
    """Noise in [-2, 2), (count, *size), by whole-number arithmetic from ``seed`` on."""
    places = np.arange(count * prod(size), dtype=np.uint64) + np.uint64(seed * prod(size) + 1)
    mixed = places * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    unit = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return torch.from_numpy(unit * 4 - 2).reshape(count, *size)


def flat(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Outputs of each image in a row, (N, ...)."""
    parts = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def kept(outputs: Tensor | Sequence[Tensor]) -> list[float]:
    """The numbers of the first image that a file keeps, evenly chosen."""
    row = flat(outputs)[0]
    places = torch.linspace(0, len(row) - 1, min(KEPT, len(row))).long()
    return [float(f"{number:.7g}") for number in row[places].tolist()]
