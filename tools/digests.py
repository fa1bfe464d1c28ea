"""Fixed inputs, and digests of what becomes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(tensors: Iterable[Tensor | None]) -> str:
    """One for any order of the tensors; those that are None count as well."""
    return hashlib.sha256("".join(sorted(map(_bits, tensors))).encode()).hexdigest()


def _bits(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    plain = tensor.detach().cpu().contiguous()
    raw = plain.reshape(-1).view(torch.uint8)  # an axis of length 1 may have any stride
    shape = f"{tuple(plain.shape)} {plain.dtype}".encode()
    return hashlib.sha256(shape + raw.numpy().tobytes()).hexdigest()


def random(*shape: int, seed: int) -> Tensor:
    """Standard normal, the same on every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
