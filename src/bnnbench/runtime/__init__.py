"""Packed 1-bit networks on a CPU, without any code of training."""

from __future__ import annotations

from pathlib import Path

from bnnbench.runtime.format import BadPackedFile, read
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.reporting import LayerPath, report

__all__ = ["BadPackedFile", "LayerPath", "PackedNetwork", "load", "report"]


FAR = 0.1  # of the largest output: one activation across its threshold moves it less


def load(path: Path | str, verify: bool = False) -> PackedNetwork:
    """The network of a packed file, in evaluation, on the CPU.

    Args:
        path: the file.
        verify: compute the file's check image, one inference, and compare what comes out.

    Raises:
        BadPackedFile: no such file, a foreign, truncated or damaged one, or one of a later version;
            with ``verify``, one that computes something else here than where it was written.
    """
    net = built(*read(path), str(path))
    if verify and "check" in net.document and not (difference := net.verify()) <= FAR:
        raise BadPackedFile(
            f"{path} computes something else here than where it was written, by {difference:.2g} "
            "of the largest output: try BNNBENCH_KERNEL=off, which needs no compiler"
        )
    return net
