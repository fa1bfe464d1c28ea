"""The constants of a packed network, unpacked from the flat tensors of its file."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Constants(nn.Module):
    """The constants of a network as buffers.

    Args:
        entries: of the document: kind and shape, and where not all numbers are stored, those.
        tensors: of the file.
    """

    def __init__(self, entries: list[list[Any]], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.signs: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._place = dict.fromkeys(tensors, 0)
        self._tensors = tensors
        for number, (kind, shape, *rest) in enumerate(entries):
            if kind == "signs":
                scale, *offset = (self.number(each) for each in rest)
                self.signs[number] = self._bits(shape), scale, offset[0] if offset else None
                continue
            if kind == "flags":
                value = self._bits(shape) > 0
            else:
                stored = rest[0] if rest else shape
                value = self._take(kind, prod(stored)).reshape(stored)
                value = value.float() if kind == "halves" else value.clone()
                value = value.expand(shape).contiguous() if rest else value
            self.register_buffer(f"c{number}", value, persistent=False)
        if any(self._place[kind] != len(tensor) for kind, tensor in tensors.items()):
            raise ValueError("there are more numbers than the operations use")
        del self._tensors

    def number(self, index: int) -> Tensor:
        """The constant of that number."""
        found = self._buffers.get(f"c{index}")
        if found is None:
            found = self.dense(index)
            self.register_buffer(f"c{index}", found, persistent=False)
        return found

    def dense(self, index: int) -> Tensor:
        """A 1-bit weight, unpacked."""
        signs, scale, offset = self.signs[index]
        value = repeated(scale, len(signs)) * signs
        return value if offset is None else value + repeated(offset, len(signs))

    def _take(self, kind: str, count: int) -> Tensor:
        start = self._place[kind]
        self._place[kind] = start + count
        if start + count > len(self._tensors[kind]):
            raise ValueError(f"there are too few {kind}")
        return self._tensors[kind][start : start + count]

    def _bits(self, shape: list[int]) -> Tensor:
        count = prod(shape)
        packed = self._take("bits", -(-count // 8)).numpy()
        bits = np.unpackbits(packed, count=count, bitorder="little")
        return torch.from_numpy(bits).float().mul_(2).sub_(1).view(shape)


def repeated(value: Tensor, count: int) -> Tensor:
    """The first axis of ``value`` in turn up to ``count``, where it is not 1."""
    if len(value) in (1, count):
        return value
    return value.repeat(-(-count // len(value)), *(1,) * (value.dim() - 1))[:count]
