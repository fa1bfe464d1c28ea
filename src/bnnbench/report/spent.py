"""What the trainings behind the committed tables took, all together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from bnnbench.report.rows import Result, lookup

_THREADS = re.compile(r", (\d+) threads?$")


def spent(results: Iterable[Result]) -> str | None:
    """The number of trainings and their core-hours or GPU-hours, as a sentence; None without any.

    Cores count by the processor time of a run where it was measured, else by the clock times its
    threads; GPUs by the clock, each of a run's.
    """
    hours: dict[str, float] = defaultdict(float)
    trainings = 0
    for result in results:
        if (seconds := lookup(result, "time", "train_s")) is not None:
            kind, devices = _devices(result)
            own = lookup(result, "time", "cpu_s") if kind == "core" else None
            hours[kind] += (own or seconds * devices) / 3600
            trainings += 1
    if not trainings:
        return None
    told = " and ".join(f"{value:,.1f} {kind}-hours" for kind, value in sorted(hours.items()))
    return f"Behind these tables: {trainings:,} training{'s' * (trainings != 1)} of {told}."


def _devices(result: Result) -> tuple[str, int]:
    """Whether a run had cores or GPUs, and how many."""
    device, processes = str(result.get("device")), int(result.get("world_size") or 1)
    if not device.startswith("cpu"):
        return "GPU", processes
    threads = _THREADS.search(device)
    return "core", processes * (int(threads[1]) if threads else 1)
