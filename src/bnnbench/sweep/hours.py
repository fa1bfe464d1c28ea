"""Device-hours of a table that is about to be trained, from timed training steps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from bnnbench.records.words import about
from bnnbench.sweep.estimate import in_all

SHOWN = 4  # networks that are named, the longest first
BEYOND = "of training steps alone, not compiled: reading images and evaluations come on top"


@dataclass(frozen=True)
class Hours:
    """What training takes, by one device; compare ``estimate``.

    Attributes:
        device: in a result's words, without its kind.
        gpu: whether it is one.
        threads: of one run, which are so many cores.
        runs: seconds of each run that is known.
        networks: the same by network.
        timed: networks and methods whose steps were timed.
        methods: all that there are.
        unknown: how often which reason keeps a run out of it.
    """

    device: str
    gpu: bool
    threads: int
    runs: list[float]
    networks: Mapping[str, float]
    timed: tuple[int, int]
    methods: int
    unknown: Mapping[str, int]

    def wall(self, workers: int, gpus: int, cores: int | None = None) -> tuple[float, float]:
        """Seconds until the last run ends with so many side by side: at least, and at most.

        They differ where runs share a GPU, which may cost them nothing or all that it gives. Where
        there are more runs than ``cores``, they share these.
        """
        own = min(workers, gpus) if self.gpu and gpus else workers
        shared = 0.0 if self.gpu or not cores else sum(self.runs) * self.threads / cores
        return max(in_all(self.runs, workers), shared), max(in_all(self.runs, own), shared)


def estimate(lines: Sequence[Mapping[str, Any]], why: str | None) -> Hours:
    """The hours of what ``runs.step_time`` has told.

    A method that was not timed is taken for the mean of those that were on its network.

    Args:
        lines: what it wrote.
        why: what it ended of, if it did not end well.

    Raises:
        ValueError: no step was timed; the message says why.
    """
    if not lines:
        raise ValueError(why or "nothing was timed")
    head, told = lines[0], lines[1:]
    step_s = {line["kind"]: line["step_s"] for line in told if _is_time(line.get("step_s"))}
    failed = next((line["why"] for line in told if "why" in line), None)
    kinds, unknown = head["kinds"], Counter(head["left_out"])
    if not step_s:
        raise ValueError(failed or why or next(iter(unknown), "nothing was timed"))
    rates = [_rate(number, kinds, step_s) for number in range(len(kinds))]
    runs, networks = [], defaultdict[str, float](float)
    for parts in head["runs"]:
        took = defaultdict[str, float](float)
        for kind, steps in parts:
            took[kinds[kind]["label"]] += steps * rates[kind]
        if missing := [label for label, seconds in took.items() if math.isnan(seconds)]:
            unknown[f"{missing[0]}: {failed or why or 'not timed'}"] += 1
            continue
        for label, seconds in took.items():
            networks[label] += seconds
        runs.append(sum(took.values()))
    kind, _, device = str(head["device"]).partition(": ")
    gpu = kind == "cuda"
    return Hours(
        device=device if gpu else device.rpartition(", ")[0],
        gpu=gpu,
        threads=head["threads"],
        runs=runs,
        networks=networks,
        timed=(len({kinds[number]["label"] for number in step_s}), len(step_s)),
        methods=len(kinds),
        unknown=unknown,
    )


def line(hours: Hours, workers: int, gpus: int, cores: int | None = None) -> str:
    """The estimate in one line."""
    unit, share = ("GPU-hours", 1) if hours.gpu else ("core-hours", hours.threads)
    total = _hours(sum(hours.runs) * share)
    text = f"estimated: {total} {unit} on {hours.device} for {_count(len(hours.runs), 'run')}"
    text += f", {_wall(hours, workers, gpus, cores)}; {BEYOND}; "
    (networks, timed) = hours.timed
    longest = sorted(hours.networks.items(), key=lambda each: -each[1])
    named = [f"{label} {_hours(seconds * share)} h" for label, seconds in longest[:SHOWN]]
    named += [f"{len(longest) - SHOWN} more"] if len(longest) > SHOWN else []
    text += f"from up to 5 timed steps each of {_count(networks, 'network')}"
    text += f" in {timed} of {hours.methods} methods" if hours.methods > networks else ""
    text += f" ({', '.join(named)})"
    left = [f"{_count(runs, 'run')} ({why})" for why, runs in hours.unknown.items()]
    return text + (f"; not in it: {', '.join(left)}" if left else "")


def _wall(hours: Hours, workers: int, gpus: int, cores: int | None) -> str:
    workers = min(workers, len(hours.runs))
    least, most = hours.wall(workers, gpus, cores)
    if workers < 2:
        return f"{about(most)} one after the other" if len(hours.runs) > 1 else about(most)
    if most > least:
        share = "one GPU" if gpus == 1 else f"{gpus} GPUs"
        return f"{about(least)} to {about(most)[6:]} with {workers} side by side on {share}"
    return f"{about(most)} with {workers} side by side"


def _rate(number: int, kinds: Sequence[Mapping[str, Any]], step_s: Mapping[int, float]) -> float:
    """Seconds of a step of a kind; nan where none was timed that is alike."""
    if number in step_s:
        return step_s[number]
    alike = [s for kind, s in step_s.items() if kinds[kind]["alike"] == kinds[number]["alike"]]
    return mean(alike) if alike else math.nan


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
