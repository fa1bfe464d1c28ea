"""Where a run is: `progress.json`, which it rewrites while it trains. Imports lightly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bnnbench.records.durable import write_whole

FILE = "progress.json"


@dataclass(frozen=True)
class Position:
    """Where a run, or the stage that it is in, is.

    Attributes:
        epoch: finished epochs.
        max_epochs: planned ones; None where nobody knows.
        batch, batches: of the pass over data that is going on.
        evaluating: whether that pass evaluates.
        metrics: of the last finished epoch; None where one is undefined.
        running: means of the training epoch so far, ``loss`` and where there is one ``acc``.
        stage: the folder of a run's stage; None of a run without stages.
        resumed: epochs that were finished when the process began; 0 for a fresh start.
        epoch_s: seconds of an epoch with its evaluation, as measured; None before the first.
        left_s: seconds until the run's last epoch ends, by that measure.
        first: the folder of the run that is trained before this one, its twin; None from then on.
    """

    epoch: int = 0
    max_epochs: int | None = None
    batch: int = 0
    batches: int = 0
    evaluating: bool = False
    metrics: dict[str, float | None] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    stage: str | None = None
    resumed: int = 0
    epoch_s: float | None = None
    left_s: float | None = None
    first: str | None = None

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError where a file holds anything else."""
        for name in ("epoch", "batch", "batches", "resumed"):
            _check(name, getattr(self, name))
        for name in ("max_epochs", "epoch_s", "left_s"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name))
        for name in ("metrics", "running"):
            for key, value in getattr(self, name).items():
                if value is not None:
                    _check(key, value, signed=True)

    @property
    def fraction(self) -> float:
        """The part of the pass over data that is done, from 0 to 1."""
        return min(1.0, self.batch / self.batches) if self.batches else 0.0

    @property
    def current(self) -> int:
        """The number of the epoch that is being trained, from 1 on; the last one at the end."""
        following = self.epoch + 1
        return following if self.max_epochs is None else min(following, self.max_epochs)


def write_position(folder: Path, position: Position) -> None:
    """Replace the file: who reads it finds the old content or the new one. Nothing is synced."""
    text = json.dumps(asdict(position), allow_nan=False)
    write_whole(folder / FILE, f"{text}\n".encode(), sync=False)


def read_position(folder: Path) -> Position | None:
    """What the run of a folder says; None where it says nothing that can be understood."""
    try:
        return as_position(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def as_position(content: Mapping[str, Any]) -> Position:
    """A position from JSON; keys of another version are left out."""
    known = {each.name for each in fields(Position)}
    return Position(**{key: value for key, value in content.items() if key in known})


def _check(name: str, value: Any, signed: bool = False) -> None:
    if isinstance(value, bool) or not math.isfinite(value) or (value < 0 and not signed):
        raise ValueError(f"{name}={value}")
