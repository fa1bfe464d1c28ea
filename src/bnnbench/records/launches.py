"""One lock for the processes that train a run together, however they were started.

srun and torchrun start all of them at once, and each comes to a run by itself. The first one waits
for the lock, while another job may train the run; the others learn from the file ``launch`` of the
folder that they train with it, or find the result. Imports lightly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bnnbench.records.durable import write_whole
from bnnbench.records.lock import POLL, check_holder, holder, locked
from bnnbench.records.ranks import rank, started_by_lightning

FILE = "launch"
PATIENCE = 600.0  # seconds in which the first process has to have come to the run
# What tells one start from another: of srun, with requeues, and of torchrun.
_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
_VARIABLES += ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")


@contextmanager
def to_train(
    folder: Path, fingerprint: str, finished: Callable[[], bool], replaces: bool = False
) -> Iterator[bool]:
    """Hold a run's folder, in all processes of this start; yields whether they train the run.

    Args:
        folder: of the run.
        fingerprint: of the run.
        finished: whether its result stands: nothing is trained, nobody waits.
        replaces: the run takes the place of whatever is in the folder, also of another one.

    Raises:
        Held: another run is being trained in the folder.
        RuntimeError: the first process of this start has not come.
    """
    if rank() > 0:
        yield started_by_lightning() or _told(folder, None if replaces else fingerprint, finished)
        return
    with locked(folder, fingerprint, replaces):
        if finished():  # by the process that held it
            yield False
            return
        try:
            write_whole(folder / FILE, _launch().encode(), sync=False)  # of this start alone
            yield True
        finally:
            (folder / FILE).unlink(missing_ok=True)


def _told(folder: Path, fingerprint: str | None, finished: Callable[[], bool]) -> bool:
    """What the first process has decided; waits for it."""
    alone = time.monotonic()
    while _said(folder) != _launch():
        if finished():
            return False
        if (other := holder(folder)) is not None:
            check_holder(folder, other, fingerprint)
            alone = time.monotonic()
        elif time.monotonic() - alone > PATIENCE:
            raise RuntimeError(
                f"the first process of this run has not come to {folder} for {PATIENCE:.0f} s: "
                "its own output says what became of it"
            )
        time.sleep(POLL)
    return True


def _launch() -> str:
    """A name of this start, equal in all its processes."""
    return " ".join(f"{name}={os.environ.get(name, '')}" for name in _VARIABLES)


def _said(folder: Path) -> str | None:
    try:
        return (folder / FILE).read_text(encoding="utf-8")
    except OSError:
        return None
