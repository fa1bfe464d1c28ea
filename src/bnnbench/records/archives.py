"""Checkpoints that claim more than they hold, refused before that is unpacked or laid out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

# Weights shrink by a few percent in a zip file, fresh moments of an optimiser to nothing.
MOST_GROWTH, ALLOWANCE = 20, 2**26


class Bomb(ValueError):
    """A file that would take far more memory or time than it has bytes."""


def check_archive(path: Path) -> None:
    """Refuse a zip file whose parts claim to be far more than its bytes. Raises Bomb.

    What cannot be read as a zip file is left to whoever reads it.
    """
    size = path.stat().st_size
    try:
        with ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return
    if claimed > MOST_GROWTH * size + ALLOWANCE:
        raise Bomb(f"its {size} bytes claim to unpack to {claimed}")


def check_content(content: object, size: int) -> None:
    """Refuse content that a file of ``size`` bytes cannot hold.

    A tensor may be a view that repeats one number, a list may hold another a million times, or
    itself.

    Raises:
        Bomb: a tensor, or the number of all parts, is larger than the file.
    """
    waiting = [content]
    for _ in range(size):
        if not waiting:
            return
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, Tensor):
            _check_tensor(part, size)
    if waiting:
        raise Bomb(f"it has more parts than its {size} bytes can hold")


def _check_tensor(tensor: Tensor, size: int) -> None:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise Bomb(f"a tensor of it is {tensor.layout} on {tensor.device}, and holds no weights")
    if tensor.numel() * tensor.element_size() > max(size, ALLOWANCE):
        raise Bomb(f"a tensor of shape {tuple(tensor.shape)} is larger than its {size} bytes")
