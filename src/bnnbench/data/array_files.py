"""Arrays in ``.npz`` and ``.npy`` files: their headers, and their content once it is harmless.

No pickle is ever read, and what a header claims is held against its file before it is unpacked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from bnnbench.data.known import DatasetDamaged

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Array:
    """An array: a ``.npy`` file, or one of an ``.npz`` file by its key."""

    file: Path
    key: str | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.file) if self.key is None else f"{self.file}: {self.key}"


def keys_of(file: Path) -> list[str]:
    """Names of the arrays in an ``.npz`` file. Raises DatasetDamaged."""
    if file.suffix.lower() == ".npy":
        raise DatasetDamaged(
            f"{file} holds one array: give dataset.images=<x.npy> dataset.labels=<y.npy>"
        )
    try:
        with ZipFile(file) as archive:
            members = archive.namelist()
    except (OSError, BadZipFile, ValueError) as error:
        raise DatasetDamaged(
            f"{file} cannot be read as an .npz file ({error}): write one with "
            "np.savez(file, images=..., labels=...)"
        ) from error
    return [name.removesuffix(".npy") for name in members if name.endswith(".npy")]


def checked_npy(file: Path) -> Path:
    """A ``.npy`` file that is as long as its header says. Raises DatasetDamaged."""
    try:
        with file.open("rb") as stream:
            shape, dtype = _header(stream)
            claimed = stream.tell() + math.prod(shape) * dtype.itemsize
        if claimed != (size := file.stat().st_size):
            raise ValueError(f"its header claims {claimed} bytes, it has {size}")
    except Exception as error:  # headers fail in many ways
        raise DatasetDamaged(f"{file} cannot be read as a .npy file: {error}") from error
    return file


def header(array: Array) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype, without content. Raises DatasetDamaged."""
    try:
        if array.key is None:
            with array.file.open("rb") as stream:
                return _header(stream)
        with ZipFile(array.file) as archive, archive.open(f"{array.key}.npy") as stream:
            return _header(stream)
    except Exception as error:  # the zip, its members or their headers
        raise DatasetDamaged(f"{array.name} cannot be read: {error}") from error


def read(array: Array) -> np.ndarray:
    """The content. Raises DatasetDamaged."""
    import numpy as np  # not at every start

    from bnnbench.data.headers import check_npz

    try:
        if array.key is None:
            return np.load(checked_npy(array.file), allow_pickle=False)
        check_npz(array.file, [array.key])
        with np.load(array.file, allow_pickle=False) as file:
            return file[array.key]
    except DatasetDamaged:
        raise
    except Exception as error:  # the zip, its members or their headers
        raise DatasetDamaged(
            f"{array.name} cannot be read: {error}; .npy files, dataset.images and dataset.labels, "
            "may be of any size"
        ) from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which may run code: save numbers or texts")
    return tuple(shape), dtype
