"""One run folder, one process: who trains in it holds its lock, and the next one waits.

The lock is the kernel's, on the file ``lock`` of the folder, and it is gone with the process that
holds it, however that ends. It is a record lock of POSIX: unlike those of ``flock`` no forked child
(a worker that reads images) keeps it for a dead parent, and NFS passes it on to other machines.
"""

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

NAME = "lock"
POLL = 0.5  # seconds between two attempts to take a lock
SAY_EVERY = 30.0  # seconds between two lines of somebody who waits
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Files whose lock is this process's: closing one of its own that was opened to look gives it up.
_ours: set[Path] = set()


class Held(ValueError):
    """A folder in which another run is being trained, so that waiting would be for nothing."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a run's folder, as it says itself."""

    host: str
    pid: int
    since: str
    command: str
    fingerprint: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


def holder(folder: Path | str) -> Holder | None:
    """The other process that is training in a run's folder now; None where there is none."""
    file = Path(folder).resolve() / NAME
    if file in _ours or not file.exists():
        return None
    try:
        with file.open() as stream:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return _read(file)
    except OSError:  # gone meanwhile, or a file system without locks
        pass
    return None


@contextmanager
def locked(folder: Path | str, fingerprint: str, replaces: bool = False) -> Iterator[None]:
    """Hold a run's folder for this process alone; wait, and say for whom, while another has it.

    ``replaces``: the run takes the place of whatever is in the folder, also of another one.

    Raises:
        Held: the folder is another run's, and nothing of what it leaves could be used.
    """
    folder = Path(folder).resolve()
    file = folder / NAME
    stream = _waited_for(file, None if replaces else fingerprint)
    if stream is None:
        yield
        return
    if (dead := _parsed(stream)) is not None:
        _say(f"{folder} was held by {dead}, which is gone: taken over")
    _write(stream, fingerprint)
    _ours.add(file)
    try:
        yield
    finally:
        with suppress(OSError):  # somebody has cleared the folder
            file.unlink()
        stream.close()
        _ours.discard(file)


def check_holder(folder: Path, other: Holder, fingerprint: str | None) -> None:
    """Refuse to wait for another run than the one of ``fingerprint``. Raises Held."""
    if fingerprint not in (None, other.fingerprint):
        raise Held(
            f"another run is being trained in {folder}, by {other}: choose another folder, or "
            "replace that run with force=true, which waits for its end"
        )


def _waited_for(file: Path, fingerprint: str | None) -> TextIO | None:
    """The open file, locked; None where the file system has no locks."""
    said = -SAY_EVERY
    while True:
        try:
            if (stream := _taken(file)) is not None:
                return stream
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            _say(
                f"{file.parent} is on a file system without locks ({error.strerror}): see that no "
                "second process trains the same run there"
            )
            return None
        now, other = time.monotonic(), _read(file)
        if other is not None:
            check_holder(file.parent, other, fingerprint)
        if other is not None and now - said >= SAY_EVERY:
            _say(f"{file.parent} is held by {other}: waiting until it ends")
            said = now
        time.sleep(POLL)


def _taken(file: Path) -> TextIO | None:
    """The open file with its lock, None where another process has that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = file.open("a+")
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it removes the file when it ends: a lock on one that is gone locks nothing.
        if os.path.samestat(os.fstat(stream.fileno()), file.stat()):
            return stream
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except OSError:
        stream.close()
        raise
    stream.close()
    return None


def _write(stream: TextIO, fingerprint: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    me = Holder(socket.gethostname(), os.getpid(), since, shlex.join(sys.argv), fingerprint)
    stream.truncate(0)
    stream.write(json.dumps(asdict(me)) + "\n")
    stream.flush()


def _read(file: Path) -> Holder | None:
    """Who says to hold a lock; None while its file is being written, or is gone."""
    try:
        with file.open() as stream:
            return _parsed(stream)
    except OSError:
        return None


def _parsed(stream: TextIO) -> Holder | None:
    stream.seek(0)
    try:
        return Holder(**json.load(stream))
    except (ValueError, TypeError):
        return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
