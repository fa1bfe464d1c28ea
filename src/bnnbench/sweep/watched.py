"""A job of a sweep as its run folder shows it, wherever it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bnnbench.records.position import FILE, Position, read_position
from bnnbench.records.words import UNKNOWN, clock, score, so_far
from bnnbench.runs.forced import workspace

WORKER = "worker.json"  # in a run's folder: the process that is at it, or was when it was killed
_WATCHED = ("result.json", "error.txt", FILE, WORKER)
State = Literal[
    "waiting", "starting", "training", "resumed", "evaluating", "finished", "reused", "failed"
]
AT_WORK: tuple[State, ...] = ("starting", "training", "resumed", "evaluating")
ENDED: tuple[State, ...] = ("finished", "reused", "failed")


@dataclass(frozen=True)
class Seen:
    """A cell of a sweep at one moment.

    Attributes:
        label: what tells it from the others.
        state: where it stands.
        epochs: planned ones; None where nobody knows.
        position: what a run at work says of itself.
        metric: the last one, in words.
        train_s: seconds that a finished run has taken for its epochs.
        why: the last line of what a failed one left.
        first: what the run says of itself that is trained before this one.
    """

    label: str
    state: State
    epochs: int | None = None
    position: Position | None = None
    metric: str = ""
    train_s: float | None = None
    why: str = ""
    first: Position | None = None


@dataclass(eq=False)
class Watched:
    """A job's run folder; files that stood there before count only once they change.

    A forced run writes its progress into a folder of its own until its result stands.
    """

    label: str
    folder: Path
    epochs: int | None = None
    before: dict[str, int | None] = field(init=False)
    _paths: dict[str, str] = field(init=False)  # a thousand cells are looked at every second
    _end: Seen | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._paths = {name: str(self.folder / name) for name in _WATCHED}
        self.before = {name: self._stamp(name) for name in _WATCHED}

    def new(self, name: str) -> bool:
        """Whether the file was written since the sweep began."""
        stamp = self._stamp(name)
        return stamp is not None and stamp != self.before[name]

    def look(self) -> Seen:
        """The job now. What has a result is not looked at again."""
        if self._end is not None:
            return self._end
        if self.new("error.txt"):
            return Seen(self.label, "failed", self.epochs, why=_last_line(self.folder))
        if self.new("result.json"):
            self._end = self._finished()
            return self._end
        if not self.new(WORKER):  # waits, also again after its process died
            return Seen(self.label, "waiting", self.epochs)
        position = read_position(Path(self._file(FILE)).parent) if self.new(FILE) else None
        if position is None:
            return Seen(self.label, "starting", self.epochs)
        return at_work(self.label, position, self.epochs)

    def _finished(self) -> Seen:
        result = _read(self.folder / "result.json")
        return reused_cell(self.label, result, "finished")

    def _stamp(self, name: str) -> int | None:
        try:
            return os.stat(self._file(name)).st_mtime_ns
        except OSError:
            return None

    def _file(self, name: str) -> str:
        if name == FILE and (forced := workspace(self.folder) / name).exists():
            return str(forced)
        return self._paths[name]


def at_work(label: str, position: Position, epochs: int | None = None) -> Seen:
    """A cell whose run says where it is, or which of ``epochs`` epochs waits for its twin."""
    if position.first is not None:
        return _behind(label, Path(position.first), epochs)
    state: State = "resumed" if position.resumed else "training"
    metric = score(position.metrics) or " ".join(so_far(position.running)[:1])
    state = "evaluating" if position.evaluating else state
    return Seen(label, state, position.max_epochs, position, metric)


def _behind(label: str, twin: Path, epochs: int | None) -> Seen:
    """A cell whose twin is trained first: "twin 3/16 test acc 60.0 %"."""
    position = read_position(twin)
    if position is None:
        return Seen(label, "starting", epochs, metric="twin")
    cell = at_work("", position)
    metric = " ".join(filter(None, ["twin", epoch_of(cell), cell.metric]))
    return Seen(label, "starting", epochs, metric=metric, first=position)


def reused_cell(label: str, result: Mapping[str, Any], state: State = "reused") -> Seen:
    """A cell that has a result, which need not be whole."""
    try:
        epochs, took = result.get("epochs"), (result.get("time") or {}).get("wall_s")
        key = result.get("headline")
        last = result["metrics"]["last"].get(key)
        metric = score({key: last}) if key and last is not None else ""
        return Seen(label, state, epochs, None, metric, None if took is None else float(took))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Seen(label, state)


def epoch_of(cell: Seen) -> str:
    """The epoch that a cell is in, of how many; of an ended one how many there were."""
    of_all = f"/{cell.epochs}" if cell.epochs is not None else ""
    if cell.position is not None:
        return f"{cell.position.current}{of_all}"
    if cell.state in ("finished", "reused"):
        return UNKNOWN if cell.epochs is None else str(cell.epochs)
    return f"{UNKNOWN}{of_all}"


def left_of(cell: Seen) -> str:
    """The time that a cell at work has left, as measured; nothing of one that has ended."""
    if cell.state in ENDED:
        return ""
    return clock(cell.position.left_s if cell.position else None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the table will say what is wrong with it
        return {}
    return content if isinstance(content, dict) else {}


def _last_line(folder: Path) -> str:
    try:
        lines = (folder / "error.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
