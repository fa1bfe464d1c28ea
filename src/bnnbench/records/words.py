"""Numbers of a run as people read them in a terminal: times and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bnnbench.records.store import headline_key

UNKNOWN = "\N{EN DASH}"
_NAMES = {"acc": "acc", "map": "mAP"}


def clock(seconds: float | None) -> str:
    """0:05, 12:31, 1:02:03, 2d 03:04; a dash where nobody knows."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """The same for an estimate that stands in a sentence: "about 40 s", "about 3 min"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    hours = seconds / 3600
    return f"about {hours:.1f} h" if hours < 48 else f"about {hours / 24:.1f} days"


def score(metrics: Mapping[str, float | None]) -> str:
    """The headline among a run's metrics: "test acc 51.1 %"; empty where there is none."""
    key = headline_key(metrics)
    value = None if key is None else metrics[key]
    if key is None or value is None:
        return ""
    return f"{metric(key)} {100 * value:.1f} %"


def metric(key: str) -> str:
    """A headline by its key: "test acc" of test/acc."""
    part, _, name = key.partition("/")
    return f"{part} {_NAMES[name]}"


def so_far(running: Mapping[str, float]) -> list[str]:
    """The means of a training epoch so far: "loss 1.234", "acc 45.6 %"."""
    found = [f"loss {running['loss']:.3f}"] if "loss" in running else []
    return found + ([f"acc {100 * running['acc']:.1f} %"] if "acc" in running else [])
