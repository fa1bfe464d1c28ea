"""Files that are whole at any moment: written beside their place, synced, and moved there.

The temporary file lies in the same folder, so that the move is one step of one file system, and is
called ``.<name>.<host>.<pid>``, so that what a dead process has left can be told from the work of
a living one.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# As older versions wrote it, without a host, too.
_TEMPORARY = re.compile(r"\..+?\.(?:json|ckpt|csv)\.(?:(?P<host>.+)\.)?(?P<pid>\d+)")
FOREIGN_S = 24 * 3600  # after which another machine's temporary file is nobody's


def write_whole(
    path: Path,
    content: bytes | Callable[[BinaryIO], object],
    keep: Path | None = None,
    sync: bool = True,
) -> None:
    """Replace the file at ``path``: a reader, or a crash, finds the old content or the new one.

    Args:
        path: of the file; missing folders are made.
        content: all of it, or what writes it into an open file.
        keep: where the file that stood at ``path`` goes; nothing is lost in between.
        sync: whether it has to outlive a power failure, which costs time.

    Raises:
        OSError: it could not be written; the message names the file, and the old one stands.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def not_written(path: Path, error: OSError) -> OSError:
    """``error`` in one line that names the file and says what helps."""
    reason = error.strerror or error
    return OSError(
        f"{path} cannot be written ({reason}): free space there, or set paths.log_dir=<folder>; "
        "what was written before is kept, and the same command goes on from it"
    )


def sync_folder(folder: Path) -> None:
    """Make moves inside ``folder`` outlive a power failure, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete the temporary files that dead processes have left in ``folder``.

    A process of this machine is asked for; of a file of another machine only its age is known, and
    it goes after a day.
    """
    for file in folder.glob(".*"):
        found = _TEMPORARY.fullmatch(file.name)
        if found is not None and _is_left(file, found["host"], int(found["pid"])):
            with suppress(OSError):
                file.unlink()


def _is_left(file: Path, host: str | None, pid: int) -> bool:
    if host not in (None, platform.node()):
        with suppress(OSError):
            return time.time() - file.stat().st_mtime > FOREIGN_S
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it lives, and is somebody else's
        return False
    return False


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")


def _keep(path: Path, place: Path) -> None:
    """Give the file at ``path`` a second name, ``place``."""
    beside = _temporary(place)
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # no hard links here: until the new file is in place, only this one stands
        path.replace(place)
        return
    beside.replace(place)
    beside.unlink(missing_ok=True)  # a move onto another name of the same file does nothing
