"""SLURM in one file: sbatch, srun, squeue, scontrol and scancel by the name it is called under.

Scripts run on this machine, each array as many at once as it says. State lies in ``FAKE_SLURM``,
one file a job. ``FAKE_WARN`` names a file of a run's folder; a job's time is over once that has
been written since it began: the processes of its step get the signal of ``--signal``, children and
all, and are killed some seconds later. ``FAKE_TIMES`` says how many starts of a job are limited so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])
KILL_AFTER = 20.0  # seconds from the warning


def read(job: str) -> dict:
    for _ in range(100):
        with suppress(ValueError):
            return json.loads((STATE / f"{job}.json").read_text())
        time.sleep(0.01)
    raise SystemExit(f"no job {job}")


def write(job: str, **news: object) -> None:
    file = STATE / f"{job}.json"
    old = read(job) if file.exists() else {}
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(old | news))
    beside.replace(file)


def sbatch(script: str) -> None:
    """Put a script, or each task of its array, into the queue and start what works it off."""
    text = Path(script).read_text()
    given = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.M))
    with (STATE / "log").open("a") as log:
        log.write(f"{json.dumps(given)}\n")
    number = str(100 + len(list(STATE.glob("*.sh"))))
    (STATE / f"{number}.sh").write_text(text)
    array = re.match(r"0-(\d+)%(\d+)", given.get("array", ""))
    jobs = [f"{number}_{task}" for task in range(int(array[1]) + 1)] if array else [number]
    for job in jobs:
        write(job, state="PENDING", starts=0)
    command = [sys.executable, __file__, "controller", number, array[2] if array else "1", *jobs]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # who waits for these?
    subprocess.Popen(command, start_new_session=True, env=os.environ, **silent)
    print(f"Submitted batch job {number}")


def controller(number: str, most: str, *jobs: str) -> None:
    """Run each job until it ends without having been requeued."""
    given = dict(
        re.findall(r"^#SBATCH --([\w-]+)=(.*)$", (STATE / f"{number}.sh").read_text(), re.M)
    )
    running: dict[str, Step] = {}
    while True:
        for job in jobs:
            if read(job)["state"] == "PENDING" and len(running) < int(most):
                running[job] = Step(number, job, given)
        for job, step in list(running.items()):
            if step.has_ended():
                del running[job]
                write(job, state="PENDING" if read(job).get("requeued") else "COMPLETED")
                write(job, requeued=False)
        if not running and all(read(job)["state"] == "COMPLETED" for job in jobs):
            return
        time.sleep(0.1)


class Step:
    """A start of a job."""

    def __init__(self, number: str, job: str, given: dict[str, str]) -> None:
        self.job, self.began, self.warned = job, time.time(), 0.0
        self.warning = getattr(signal, f"SIG{given['signal'].split('@')[0]}")
        starts = read(job)["starts"] + 1
        write(job, state="RUNNING", starts=starts)
        self.limited = starts <= int(os.environ.get("FAKE_TIMES", "0"))
        task = job.partition("_")[2]
        own = {"SLURM_JOB_ID": number, "SLURM_JOB_NUM_NODES": "1", "FAKE_JOB": job}
        own |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task} if task else {}
        output = given["output"].replace("%A", number).replace("%a", task).replace("%j", job)
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        with open(output, "a") as out:
            self.process = subprocess.Popen(
                ["bash", str(STATE / f"{number}.sh")],
                env=os.environ | own,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        if self.process.poll() is not None:
            return True
        if self.limited and not self.warned and self.is_over():
            self.warned = time.time()
            self.signal(self.warning)
        if self.warned and time.time() - self.warned > KILL_AFTER:
            self.signal(signal.SIGKILL)
        if read(self.job).get("cancelled"):
            self.signal(signal.SIGKILL)
        return False

    def is_over(self) -> bool:
        found = Path(os.environ["FAKE_ROOT"]).glob(os.environ["FAKE_WARN"])
        return any(file.stat().st_mtime > self.began for file in found)

    def signal(self, signum: int) -> None:
        for group in read(self.job).get("groups", []):
            with suppress(ProcessLookupError):
                os.killpg(group, signum)


def srun(*words: str) -> int:
    """Start each task of the job, in a process group of its own."""
    given = dict(zip(words[1:5:2], words[2:5:2], strict=True))
    job = os.environ["FAKE_JOB"]
    number, _, task = job.partition("_")
    tasks = int(os.environ.get("FAKE_TASKS", "1"))
    started = []
    for rank in range(tasks):
        named = {
            key: value.replace("%A", number).replace("%a", task).replace("%j", job)
            for key, value in given.items()
        }
        out, err = (
            Path(named[key].replace("%t", str(rank))).open("a")  # noqa: SIM115
            for key in ("--output", "--error")
        )
        own = {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks)}
        own |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        own |= {"SLURM_NODELIST": "127.0.0.1"}
        started.append(
            subprocess.Popen(
                words[5:], env=os.environ | own, stdout=out, stderr=err, start_new_session=True
            )
        )
    write(job, groups=[process.pid for process in started])
    while any(process.poll() is None for process in started):
        if any(process.poll() for process in started):  # as SLURM_KILL_BAD_EXIT=1
            for process in started:
                process.kill()
        time.sleep(0.1)
    return max(abs(process.wait()) for process in started)


def squeue(*_: str) -> None:
    """Number and state of what waits or runs."""
    for file in sorted(STATE.glob("*.json")):
        if (state := read(file.stem)["state"]) != "COMPLETED":
            print(file.stem, state)


def scontrol(verb: str, job: str) -> None:
    """Requeue a job, which runs once more when it has ended."""
    assert verb == "requeue"
    write(job, requeued=True)


def scancel(*jobs: str) -> None:
    """End jobs."""
    for job in jobs:
        known = read(job)["state"]
        write(job, cancelled=True, state="COMPLETED" if known == "PENDING" else known)


if __name__ == "__main__":
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if words[:1] == ["controller"]:
        name, *words = words
    sys.exit(globals()[name](*words))
