"""The launch of a sweep's jobs, which survives the death of a worker.

Where a worker of joblib's dies, by the kernel when memory runs out or in a crash, joblib gives up
all jobs that run or wait. Here the others are launched again, and the one that died goes last, on
its own: it may have been the victim of what ran beside it. If it dies alone, it is the culprit.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobStatus

from bnnbench.records.lock import POLL, holder
from bnnbench.records.store import read_error
from bnnbench.sweep.watched import WORKER, Watched

from ._job import HELD
from ._queue import Queue

# Each job's overrides -> Hydra's JobReturns, or what hands jobs over to a cluster.
Launch = Callable[[list[list[str]]], Sequence[Any]] | Queue
Dead = dict[int, int]  # processes and their exit codes
DIED = "the process of this run died"  # begins the error.txt of such a run
CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")


@dataclass
class Launches:
    """All launches of a sweep's jobs: `work` holds each job's overrides.

    Jobs that were cut in an earlier call go last, and those that had died alone each alone.
    """

    work: Mapping[Watched, list[str]]
    launch: Launch
    failed: list[Watched] = field(default_factory=list)

    def once(self) -> None:
        """Under a launcher that looks after its jobs itself. Raises what it raises."""
        if isinstance(self.launch, Queue):
            self.failed += self.launch.run({job: self.work[job] for job in _by_risk(self.work)})
        else:
            self._launch(_by_risk(self.work))

    def despite_deaths(self) -> None:
        """Under joblib's: what went wrong in one job stops no other.

        Raises:
            Exception: what the launcher raised, where it is no worker's death.
        """
        jobs = _by_risk(self.work)
        alone = [job for job in jobs if _has_died(job.folder)]
        jobs = [job for job in jobs if job not in alone]
        while jobs:  # each turn ends them, or puts one of them aside
            dead = self._deaths(jobs)
            jobs = [job for job in jobs if not _has_ended(job)] if dead is not None else []
            aside = _suspects(jobs, dead or {})
            alone += aside
            jobs = [job for job in jobs if job not in aside]
        for job in alone:
            if (dead := self._deaths([job])) is not None and not _has_ended(job):
                code = dead.get(_process(job.folder) or 0)
                (job.folder / "error.txt").write_text(f"{DIED}: {_culprit(code)}\n")
                self.failed.append(job)

    def _deaths(self, jobs: Sequence[Watched]) -> Dead | None:
        """Launch jobs; what died where a worker did, None where all came back."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        for job in _free(jobs):
            (job.folder / WORKER).unlink(missing_ok=True)
        with _dead_workers() as dead:
            try:
                self._launch(jobs)
                return None
            except TerminatedWorkerError:
                if not any(_has_ended(job) or _process(job.folder) for job in jobs):
                    raise  # before any job began: the next launch would end the same way
                self.failed += [job for job in jobs if job.new("error.txt")]
                return dead

    def _launch(self, jobs: Sequence[Watched]) -> None:
        """Launch jobs, and once more those that another process was at, when it lets go of them."""
        assert not isinstance(self.launch, Queue)
        held: list[Watched] = []
        while jobs:
            returns = self.launch([self.work[job] for job in jobs])
            for job, told in zip(jobs, returns, strict=True):
                if told.status == JobStatus.FAILED:
                    self.failed.append(job)
                elif told.return_value == HELD:
                    held.append(job)
            jobs = _awaited(held)
            held = [job for job in held if job not in jobs]


def _awaited(jobs: Sequence[Watched]) -> list[Watched]:
    """Those of jobs that no other process trains any more, as soon as there are any."""
    free = _free(jobs)
    for job in jobs if not free else ():
        if (who := holder(job.folder)) is not None:
            _say(f"{job.folder.name} is held by {who}: waiting until that ends")
    while jobs and not free:
        time.sleep(POLL)
        free = _free(jobs)
    return free


def _free(jobs: Iterable[Watched]) -> list[Watched]:
    return [job for job in jobs if holder(job.folder) is None]


def _by_risk(jobs: Iterable[Watched]) -> list[Watched]:
    return sorted(jobs, key=lambda job: (_has_died(job.folder), (job.folder / WORKER).exists()))


def _suspects(jobs: Sequence[Watched], dead: Dead) -> list[Watched]:
    """Those of unfinished jobs that ran in the dead processes; all that ran if nobody knows."""
    running = [job for job in jobs if _process(job.folder) is not None]
    suspects = [job for job in running if _process(job.folder) in dead] or running
    for job in suspects:
        how = _how(dead.get(_process(job.folder) or 0))
        _say(f"{job.folder.name}: its process was {how}: it goes last, alone; the others go on")
    return suspects


def _has_ended(job: Watched) -> bool:
    return job.new("result.json") or job.new("error.txt")


def _has_died(folder: Path) -> bool:
    """Whether the run's process died alone in an earlier call."""
    return (read_error(folder) or "").startswith(DIED)


def _process(folder: Path) -> int | None:
    """The process that has begun with the run and has not come to its end."""
    try:
        return int(json.loads((folder / WORKER).read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _dead_workers() -> Iterator[Dead]:
    """The workers that loky finds dead, before it kills the others: its error names none."""
    from joblib.externals.loky import process_executor as loky

    describe, dead = loky.get_exitcodes_terminated_worker, {}

    def noted(processes: Mapping[int, Any]) -> str:
        text = describe(processes)  # it waits until there is an exit code
        dead.update({p.pid: p.exitcode for p in [*processes.values()] if p.exitcode is not None})
        return text

    loky.get_exitcodes_terminated_worker = noted
    try:
        yield dead
    finally:
        loky.get_exitcodes_terminated_worker = describe


def _how(code: int | None) -> str:
    if code is None:
        return "killed"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _culprit(code: int | None) -> str:
    """One line: what the run died of, as far as its exit code says, and what to do."""
    how = _how(code)
    if code == -signal.SIGKILL:
        held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # KiB on Linux
        return (
            f"{how}, as the kernel does when memory runs out, with no other run of the sweep "
            f"beside it (the largest process so far held {held:,.0f} MB); it needs more memory, "
            "or a smaller dataset.batch_size"
        )
    if how.split()[-1] in CRASHES:
        return f"{how}, a crash in compiled code; output.log ends where it happened"
    return f"{how}; output.log may say why"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
