"""The kernel's library: compiled by the system's C compiler at first use, and kept.

It lies in the user's cache folder under a name that holds a hash of the source, the flags and the
compiler, and one of the library itself. Who finds no whole one compiles under a name of its own and
renames, so that processes that start together do not disturb one another. A folder that cannot be
written, or that others can write, is passed over for a private one of this process.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in ("kernel.c", "kernel_tile.h", "kernel_float.h", "kernel_mean.h")
)
# Contraction would round a product and a sum at once, which the same arithmetic in torch does not.
COMMON = (
    *("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"),
    *("-shared", "-fPIC"),
)
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mpopcnt")
FLAGS = {
    "avx512vbmi": (*AVX512, "-mavx512vbmi", "-mbmi2"),
    "avx512": AVX512,
    "avx2": ("-mavx2", "-mfma", "-mpopcnt"),
    "neon": (),
}
OPENMP = ((), ("-fopenmp",))  # from the end: a compiler without it still makes a library
LONGEST = 300  # seconds that a compiler may take on a busy machine
INSTALL = "install a C compiler (Debian and Ubuntu: apt install gcc; macOS: xcode-select --install)"


class BuildError(Exception):
    """Why there is no library, in one line that says what to do."""


def supported() -> list[str]:
    """The paths that this CPU can run, best first; ``ATEN_CPU_CAPABILITY`` lowers them."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return ["neon"]
    capability = torch.backends.cpu.get_cpu_capability()
    if "AVX512" in capability:
        return [*(["avx512vbmi"] if has_vbmi() else []), "avx512", "avx2"]
    return ["avx2"] if "AVX2" in capability else []


def has_vbmi() -> bool:
    """Whether the CPU shuffles bytes over 64 of them, which torch does not tell."""
    try:
        return "avx512vbmi" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def library(path: str) -> Path:
    """The library of ``path``, compiled if need be; ``BuildError`` if that fails."""
    return compiled(path, [(*FLAGS[path], *openmp) for openmp in reversed(OPENMP)], SOURCES)


def compiled(
    name: str,
    variants: Sequence[tuple[str, ...]],
    sources: Sequence[Path],
    libraries: tuple[str, ...] = (),
) -> Path:
    """A library of C, compiled if need be; ``BuildError`` if that fails.

    Args:
        name: begins its file's.
        variants: flags to try in turn.
        sources: the file to compile, and those that it includes.
        libraries: flags of what it is linked with.
    """
    failures = []
    for compiler in compilers():
        for folder in folders():
            for flags in variants:
                try:
                    return kept_or_made(folder, name, compiler, flags, sources, libraries)
                except (OSError, subprocess.SubprocessError) as error:
                    failures.append(said(error))
    if failures:
        raise BuildError(f"compiling it failed ({failures[-1]}): check CC, or {INSTALL}")
    raise BuildError(f"no C compiler was found as $CC, cc, gcc or clang: {INSTALL}")


def compilers() -> Iterator[list[str]]:
    """The commands that may compile."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        command = shlex.split(name)
        if command and shutil.which(command[0]):
            yield command


def folders() -> Iterator[Path]:
    """Folders to keep libraries in: the cache, and one of this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = Path(os.environ.get("BNNBENCH_KERNEL_CACHE") or cache / "bnnbench" / "kernels")
    try:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(chosen) and os.access(chosen, os.R_OK | os.W_OK | os.X_OK):
            yield chosen
    except OSError:
        pass
    private = tempfile.mkdtemp(prefix="bnnbench-kernel-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    yield Path(private)


def is_private(folder: Path) -> bool:
    """Whether nobody else can put a library there."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def kept_or_made(
    folder: Path,
    path: str,
    compiler: list[str],
    flags: tuple[str, ...],
    sources: Sequence[Path],
    libraries: tuple[str, ...],
) -> Path:
    """The library of these flags in ``folder``: the one there if it is whole, or a new one."""
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, timeout=LONGEST, check=True
    ).stdout
    said_to_it = repr((COMMON, flags, libraries)).encode()
    key = digest(*(source.read_bytes() for source in sources), said_to_it, version)
    for found in folder.glob(f"{path}-{key}-*.so"):
        if found.stem.rpartition("-")[2] == digest(found.read_bytes()):
            return found
    descriptor, made = tempfile.mkstemp(prefix="making-", suffix=".so", dir=folder)
    os.close(descriptor)
    try:
        command = [*compiler, *COMMON, *flags, "-o", made, str(sources[0]), *libraries]
        subprocess.run(command, capture_output=True, timeout=LONGEST, check=True)
        whole = folder / f"{path}-{key}-{digest(Path(made).read_bytes())}.so"
        os.replace(made, whole)
    finally:
        Path(made).unlink(missing_ok=True)
    return whole


def digest(*parts: bytes) -> str:
    """A short name of these bytes."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.hexdigest()[:16]


def said(error: Exception) -> str:
    """The first line that a failed compiler wrote about an error, or the error itself."""
    output = getattr(error, "stderr", None) or b""
    lines = [line for line in output.decode(errors="replace").splitlines() if "error" in line]
    return (lines or [str(error)])[0].strip()[:200]
