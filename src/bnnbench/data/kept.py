"""What is worked out of a user's folder once and kept: small files in the data folder.

They only save time, or say what was done: where the data folder cannot be written, nothing is kept.
Free of torch and numpy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FOLDER = ".bnnbench"  # in the data folder


def place(data_dir: str | Path) -> Path:
    """Where it is kept."""
    return Path(data_dir).expanduser() / FOLDER


def state_of(files: Iterable[str | Path]) -> str:
    """Sixteen digits for the present state of some files: paths, sizes, times of change.

    A file that is not there counts as such.
    """
    digest = hashlib.sha256()
    for file in files:
        with suppress(OSError):
            told = os.stat(file)
            digest.update(f" {told.st_size} {told.st_mtime_ns}".encode())
        digest.update(os.fsencode(file) + b"\n")
    return digest.hexdigest()[:16]


def write_new(path: Path, text: str) -> bool:
    """Write a file that is not there yet, whole or not at all; whether it is there now.

    What is there stays, also where another process is faster.
    """
    if not may_write(path.parent):
        return path.exists()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(part, path)  # fails where a rename would replace
    except OSError:
        return path.exists()
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return True


def may_write(folder: Path) -> bool:
    """Whether a folder, or the nearest above it that is there, is not marked as read-only.

    The marks are for root as well, whom they would not keep from writing.
    """
    there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    return there is not None and bool(there.stat().st_mode & 0o222)
