"""The most that one core's registers allow, to hold a kernel against."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bnnbench.bench.machine import cpu
from bnnbench.runtime import build, kernel

LOOPS = ("look_ups", "floats", "bytes")


def limits() -> dict[str, float]:
    """G multiply-accumulates a second of one core, out of its registers: medians of 15.

    Of the kernel's look-ups, of float32 and of int8; empty where there is no kernel.
    """
    active, path = kernel.active()
    if active is None:
        return {}
    flags = [*build.COMMON, *build.FLAGS[path], f"-I{build.SOURCES[0].parent}"]
    if "avx512" in path and "avx512_vnni" in cpu()[1]:
        flags.append("-mavx512vnni")
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/limits.so"
        source = str(Path(__file__).with_name("limits.c"))
        command = [*next(build.compilers()), *flags, "-o", file, source]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except subprocess.CalledProcessError:
            return {}  # a loop of instructions that this compiler does not know
        library = ctypes.CDLL(file)
    library.initialise()
    return {name: _limit(getattr(library, name)) for name in LOOPS}


def _limit(loop: Any) -> float:
    """G a second of one loop."""
    loop.restype, loop.argtypes, found = ctypes.c_double, [ctypes.c_long], []
    for _ in range(15):
        start = time.thread_time()
        done = loop(1_000_000)
        found.append(done / (time.thread_time() - start) / 1e9)
    return float(f"{np.median(found):.4g}")
