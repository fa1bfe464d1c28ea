"""The processes that train one run together: one that dies ends the run, and says of what.

Lightning's first process starts the others and kills itself without a word where one of them dies;
a process whose first is gone would wait for it for half an hour. Here both leave a reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L

from bnnbench.checks.errors import is_told
from bnnbench.records.ranks import started_by_lightning
from bnnbench.runs import signals

POLL = 0.5  # seconds between two looks at the others
GRACE = 15.0  # seconds for a process that waits for a dead one to notice by itself
# What the error of a process is that has lost another one.
LOST = ("gloo", "NCCL", "ProcessGroup", "Connection closed by peer", "Connection reset by peer")
_started: list[subprocess.Popen[bytes]] = []  # by the trainer of a run's first stage, for all


class ProcessDied(ChildProcessError):
    """One of the processes of a run has died; the others cannot go on."""


class Peers(L.Callback):
    """Watches the processes of a run that Lightning has started, from each of them.

    Args:
        folder: the run's, where ``error.txt`` says what happened.
    """

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / "error.txt"
        self._over = threading.Event()
        self._first = os.getppid() if started_by_lightning() else None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        started: Any = getattr(trainer.strategy.launcher, "procs", None)
        if started:  # taken over: Lightning's own watch would kill this process within 5 s
            _started.extend(started)
            started.clear()
        if trainer.world_size > 1 and (_started or self._first is not None):
            self._over = threading.Event()
            watch = self._watch_others if _started else self._watch_first
            threading.Thread(target=watch, args=[self._over], name="peers", daemon=True).start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._over.set()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, signals.Ended):
            self.end()  # they wait for this process in the middle of a step

    def end(self) -> None:
        """End the others, which are gone when this returns."""
        self._over.set()
        for process in _started:
            process.send_signal(signal.SIGKILL)
        for process in _started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)

    def reason(self, error: Exception) -> str | None:
        """Why another process has died where that is what ``error`` came of; None: it is not."""
        self._over.set()
        if is_told(error) or not any(word in str(error) for word in LOST):
            return None  # it is this one's own
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if (found := self._dead()) is not None:
                return found
            time.sleep(POLL)
        return None

    def _dead(self) -> str | None:
        """What has become of the first process that did not end well; None while there is none."""
        for rank, process in enumerate(_started, start=1):
            if process.poll():
                return f"process {rank} of this run, {process.pid}, {_how(process.returncode)}"
        if self._first is not None and os.getppid() != self._first:
            return f"the first process of this run, {self._first}, died"
        return None

    def _watch_others(self, over: threading.Event) -> None:
        """In the first process, which may wait in a collective that never ends."""
        while not over.wait(POLL):
            if (found := self._dead()) is not None:
                write_reason(self.file, found)
                if not over.wait(GRACE):
                    self.end()
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def _watch_first(self, over: threading.Event) -> None:
        """In the others, which wait for it in the same way."""
        while not over.wait(POLL):
            if (found := self._dead()) is not None:
                write_reason(self.file, found)
                os._exit(1)


@contextmanager
def watched(trainer: L.Trainer) -> Iterator[None]:
    """Around what all processes of a run do together.

    Raises:
        ProcessDied: another one died, which this one has seen by an error of its own.
    """
    found: Any = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    peers = next(each for each in found if isinstance(each, Peers))
    try:
        yield
    except Exception as error:
        if (reason := peers.reason(error)) is None:
            raise
        write_reason(peers.file, reason)
        raise ProcessDied(f"{reason}; {peers.file} says more") from error


def write_reason(file: Path, reason: str) -> None:
    """Leave a reason, unless the process that died has left its own."""
    with suppress(OSError), file.open("x") as opened:
        opened.write(f"{reason}\n")


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    memory = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"
