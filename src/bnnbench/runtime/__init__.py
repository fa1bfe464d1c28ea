"""Packed 1-bit networks on a CPU, without any code of training."""

from __future__ import annotations

from pathlib import Path

from bnnbench.runtime.format import BadPackedFile, read
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.reporting import LayerPath, report

__all__ = ["BadPackedFile", "LayerPath", "PackedNetwork", "load", "report"]


def load(path: Path | str) -> PackedNetwork:
    """The network of a packed file, in evaluation, on the CPU.

    Raises:
        BadPackedFile: no such file, a foreign, truncated or damaged one, or one of a later version.
    """
    return built(*read(path), str(path))
