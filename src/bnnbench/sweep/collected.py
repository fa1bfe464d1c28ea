"""Where a sweep stands that nobody waits for: what is done, what runs or waits, what is missing.

It is read from the runs' folders and SLURM's queue. Imports lightly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnnbench.records.lock import holder
from bnnbench.records.position import read_position
from bnnbench.records.store import Cell, DamagedResult, cell_state, read_error, read_result
from bnnbench.sweep.jobs import Submitted, in_queue, read_job
from bnnbench.sweep.labels import labels
from bnnbench.sweep.watched import Seen, at_work, epoch_of, reused_cell

# What is told of a run, in the order of the summary.
ORDER = ("finished", "running", "in the queue", "failed", "interrupted", "damaged", "missing")


def standing(manifest: Mapping[str, Any], runs: Path) -> list[str]:
    """A line that counts, and one for each run of a sweep: its state, what it is, and where.

    Args:
        manifest: of the sweep.
        runs: the folder of its runs' folders.
    """
    cells = [
        Cell(dict(cell["overrides"]), cell["run"], cell["fingerprint"])
        for cell in manifest["cells"]
    ]
    told = dict(zip((cell.run for cell in cells), labels(cells, manifest["swept"]), strict=True))
    waiting = in_queue() or {}
    found = {cell.run: _of(cell, runs, waiting) for cell in cells}
    counts = Counter(state for state, _ in found.values())
    head = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    width = max(map(len, ORDER))
    lines = [
        f"{state:{width}}  {': '.join(filter(None, [told[run] or run, what]))}"
        for run, (state, what) in found.items()
    ]
    return [f"sweep {manifest['name']}: {len(found)} runs, {head}", *lines]


def _of(cell: Cell, runs: Path, waiting: Mapping[str, str]) -> tuple[str, str]:
    """The state of a run, and what there is to tell of it."""
    folder, job = runs / cell.run, read_job(runs / cell.run)
    state = cell_state(runs, cell)
    if state == "finished":
        return state, _score(folder)
    if job is not None and job.job in waiting and waiting[job.job] != "RUNNING":
        return "in the queue", f"{job}, {waiting[job.job].lower()}"
    if holder(folder) is not None or (job is not None and job.job in waiting):
        return "running", f"{_position(folder)}{_log(folder, job)}"
    if state == "failed":
        last = (read_error(folder) or "").strip().splitlines()[-1:]
        return state, f"{''.join(last)}; {folder / 'error.txt'}"
    return state, _log(folder, job).removeprefix("; ") if state != "missing" or job else ""


def _score(folder: Path) -> str:
    try:
        return reused_cell("", read_result(folder) or {}).metric
    except DamagedResult:  # written over meanwhile
        return ""


def _position(folder: Path) -> str:
    if (position := read_position(folder)) is None:
        return "starting"
    seen: Seen = at_work("", position)
    if seen.state == "starting":
        return f"starting, {seen.metric}"
    return ", ".join(filter(None, [f"epoch {epoch_of(seen)}", seen.metric]))


def _log(folder: Path, job: Submitted | None) -> str:
    """Where it is told what happens: by the run, else by its queue."""
    own = folder / "output.log"
    files = [str(own)] if own.exists() else [job.stderr] if job is not None else []
    return "; ".join(["", *([str(job)] if job is not None else []), *files])
