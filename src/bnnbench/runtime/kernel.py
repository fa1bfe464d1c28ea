"""The library of ``kernel.c`` through ctypes, its structures, and the choice of a path.

``BNNBENCH_KERNEL`` is ``auto`` (the best that this CPU runs), the name of a path, or ``off``.
Whatever fails leaves the float path, which is exact as well, and one warning that says why.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_void_p
from functools import cache
from pathlib import Path

from torch import Tensor

from bnnbench.runtime import build

CHOICES = ("auto", *build.FLAGS, "off")
_LOCK = threading.Lock()


class CEncoder(Structure):
    """``Encoder`` of kernel.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("threshold", "flip", "border")),
        *((name, c_int32) for name in ("channels", "codes", "groups", "ph", "pw")),
    ]


class CActivation(Structure):
    """``Activation`` of kernel.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("positive", "negative", "shift")),
        *((name, c_float) for name in ("low", "high")),
    ]


class CLayer(Structure):
    """``Layer`` of kernel.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("weights", "segment", "scale", "window", "rows")),
        *((name, c_void_p) for name in ("row_kind", "column_kind")),
        ("before", CActivation),
        ("after", CActivation),
        ("next", POINTER(CEncoder) * 2),
        *((name, c_int32) for name in ("segments", "length", "codes", "groups", "height", "width")),
        *((name, c_int32) for name in ("sh", "sw", "oh", "ow", "out", "padded", "bits")),
        ("column_kinds", c_int32),
    ]


class CStem(Structure):
    """``Stem`` of kernel_float.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("weights", "shift")),
        ("after", CActivation),
        ("next", POINTER(CEncoder) * 2),
        *((name, c_int32) for name in ("channels", "kh", "run", "h", "w", "ph", "pw", "sh", "sw")),
        *((name, c_int32) for name in ("oh", "ow", "out", "padded", "pool", "pool_stride")),
        *((name, c_int32) for name in ("pool_padding", "pooled_h", "pooled_w")),
    ]


class CMean(Structure):
    """``Mean`` of kernel_mean.h."""

    _fields_ = [
        ("scale", c_float),
        *((name, c_int32) for name in ("channels", "h", "w", "top", "bottom", "left", "right")),
        *((name, c_int32) for name in ("kh", "kw", "sh", "sw", "dh", "dw", "oh", "ow")),
    ]


class Kernel:
    """A loaded library.

    Attributes:
        name: the path, as the library itself calls it.
        vector: outputs of one vector.
        channels: channels of one code.
        factor: of a code of a map, over the number of its row.
        float_block: outputs of one block of the float convolution.
        encode, convolve, stem, means, chunk_pixels: functions of kernel.c; pointers are integers.
    """

    def __init__(self, file: Path) -> None:
        self.library = library = ctypes.CDLL(str(file))
        library.name.restype = c_char_p
        library.encode.argtypes = [c_void_p] * 3 + [c_int] * 4
        library.convolve.argtypes = [c_void_p] * 5 + [c_int] + [c_void_p] * 2 + [c_int] * 2
        library.stem.argtypes = [c_void_p] * 8 + [c_int] * 2
        library.means.argtypes = [c_void_p] * 5 + [c_int] * 2
        library.stem.restype = library.means.restype = None
        library.encode.restype = library.convolve.restype = None
        library.chunk_pixels.argtypes = [c_void_p]
        library.initialise()
        self.name = library.name().decode()
        self.vector, self.channels = library.vector_bytes(), library.code_channels()
        self.factor = library.code_factor()
        self.float_block = library.float_block()
        self.encode, self.convolve = library.encode, library.convolve
        self.stem, self.means = library.stem, library.means
        self.chunk_pixels = library.chunk_pixels


def pointer(tensor: Tensor | None) -> int | None:
    """The address of a tensor's first element."""
    return None if tensor is None else tensor.data_ptr()


def active() -> tuple[Kernel | None, str]:
    """The kernel that layers use from now on, and its name; or None, and why."""
    with _LOCK:
        return _chosen(os.environ.get("BNNBENCH_KERNEL", "auto") or "auto")


@cache
def _chosen(choice: str) -> tuple[Kernel | None, str]:
    """The kernel of one value of ``BNNBENCH_KERNEL``."""
    if choice not in CHOICES:
        raise ValueError(f"BNNBENCH_KERNEL={choice}: choose {', '.join(CHOICES)}")
    if choice == "off":
        return None, "BNNBENCH_KERNEL=off"
    reason = "there is no kernel for this CPU (AVX2, AVX-512 and NEON have one)"
    if choice != "auto" and choice not in build.supported():
        reason = f"BNNBENCH_KERNEL={choice}, which this CPU does not run"
    try:
        for path in build.supported() if choice == "auto" else {choice} & {*build.supported()}:
            return tested(Kernel(build.library(path))), path
    except (build.BuildError, OSError, AttributeError) as error:
        reason = str(error)
    warnings.warn(
        f"packed layers run in floats, exact but slower than the 1-bit kernel: {reason}",
        stacklevel=2,
    )
    return None, reason


def tested(kernel: Kernel) -> Kernel:
    """``kernel``, once it has computed what the float path computes."""
    from bnnbench.runtime.selftest import differences  # it needs layers, which need this file

    if found := differences(kernel):
        raise build.BuildError(
            f"the {kernel.name} kernel failed its self-test ({found}): try another compiler with CC"
        )
    return kernel
