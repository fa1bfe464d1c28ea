"""The job of a cluster's queue that a run was handed over as, written down in the run's folder.

So a later call knows what is still in the queue, and whoever looks at a table where its log lies.
Imports lightly.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from getpass import getuser
from pathlib import Path

from bnnbench.records.store import write_json

FILE = "job.json"
SECONDS = 60  # that squeue may take


@dataclass(frozen=True)
class Submitted:
    """A job of a run.

    Attributes:
        queue: ``slurm`` or ``local``.
        job: its number there.
        stdout, stderr: files of what the queue and submitit say of it.
    """

    queue: str
    job: str
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"job {self.job}"


def write_job(folder: Path, job: Submitted) -> None:
    """Remember the job of a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, asdict(job))


def read_job(folder: Path) -> Submitted | None:
    """The last job of a run; None of one that was never handed over."""
    try:
        return Submitted(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def in_queue() -> dict[str, str] | None:
    """SLURM's jobs of this user that wait or run, by number: PENDING, RUNNING and so on.

    None where nobody can tell: there is no squeue, or its server does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", f"--user={getuser()}", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line.strip())
