"""What surrounds the task function in every job of a sweep, under any launcher."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig

from bnnbench.records.lock import holder
from bnnbench.records.store import write_json
from bnnbench.runs import signals
from bnnbench.sweep.devices import claim_gpu, in_joblib_worker
from bnnbench.sweep.watched import WORKER

SUBMITIT = "SUBMITIT_EXECUTOR"  # environment of submitit's jobs
_QUIET = "ignore:resource_tracker"
HELD = "held by another process"  # what a job returns whose turn has to come again


class JobFailed(RuntimeError):
    """A job's failure as one line: it always pickles, which the exception itself may not."""


class Job:
    """The task function of a sweep, isolated: one job's failure leaves the others alone.

    A failure leaves its traceback in the run folder's error.txt, whatever it was; with `log` the
    job's output goes to the folder's output.log. A run that another process trains is left to it,
    and the worker free for others; a job of a cluster's queue waits, since nobody asks it again.
    """

    def __init__(self, task: TaskFunction, log: bool) -> None:
        self.task, self.log = task, log

    def __call__(self, cfg: DictConfig) -> float | str | None:
        signals.check()
        folder = Path(HydraConfig.get().runtime.output_dir)
        if SUBMITIT not in os.environ and holder(folder) is not None:
            return HELD
        error_file = folder / "error.txt"
        error_file.unlink(missing_ok=True)
        if SUBMITIT in os.environ:
            signals.answered_here_alone("the same command goes on")
        if in_joblib_worker():
            claim_gpu()
            _end_with_parent()
            signals.leave_to_parent(signal.SIGINT)
        try:
            write_json(folder / WORKER, {"pid": os.getpid()})
            with _output_to(folder / "output.log") if self.log else nullcontext():
                return _as_float(self.task(cfg))
        except (KeyboardInterrupt, signals.Ended):
            raise
        except BaseException as error:
            signals.check()
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None  # Lightning turns one into the other
            if not error_file.exists():
                error_file.write_text(traceback.format_exc())
            raise JobFailed(f"{type(error).__name__}: {error}") from None
        finally:
            (folder / WORKER).unlink(missing_ok=True)


def start_tracker() -> None:
    """Start the process in which joblib remembers what its workers share, deaf to our signals.

    By itself it is so to two of them: of another one, to the whole group, it would die, and its
    successor print tracebacks of what it does not know. It outlives us to clear what is left, and
    would warn, behind our last line, of what somebody else has cleared meanwhile.
    """
    from joblib.externals.loky.backend.resource_tracker import ensure_running

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    sys.warnoptions.append(_QUIET)  # an option of processes that are started now
    try:
        ensure_running()
    finally:
        sys.warnoptions.remove(_QUIET)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_float(value: Any) -> float | None:
    """Results travel between processes: a returned module would keep its memory."""
    return None if value is None else float(value)


@contextmanager
def _output_to(file: Path) -> Iterator[None]:
    """Send stdout and stderr, C libraries' too, to a file; it goes on where a resumed run left."""
    kept = [os.dup(1), os.dup(2)]
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _redirect(log, log)
        yield
    finally:
        _redirect(*kept)
        for descriptor in (log, *kept):
            os.close(descriptor)


def _redirect(stdout: int, stderr: int) -> None:
    for stream, number, target in ((sys.stdout, 1, stdout), (sys.stderr, 2, stderr)):
        stream.flush()
        os.dup2(target, number)


def _end_with_parent() -> None:
    """A worker outlives a killed sweep until its job ends; the next call would run it again."""
    name = "end-with-parent"
    if any(thread.name == name for thread in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name=name, daemon=True).start()
