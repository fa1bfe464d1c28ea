"""What every logger of a run is given, and what it has to do with it.

Rows come while a run trains, one or more an epoch, as Lightning logs them. When it has its result,
the same of a live run and of a finished one that a logger was switched on for: the summary, the
histograms of latent weights and the pictures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)

Job = Literal["train", "evaluate", "summary"]
Status = Literal["success", "failed", "cut"]
# What a summary has of a result beside its metrics, operations and times.
FACTS = ("headline", "epochs", "planned_epochs", "train_images", "test_images", "ended")
FACTS += ("precision", "compiled", "device", "world_size", "data_stamp", "source_hash")


class About(NamedTuple):
    """Which run a logger is of.

    Attributes:
        name: the same whenever it is run; it ends in digits of its fingerprint.
        job: its kind.
        tags: what the user marked it with.
    """

    name: str
    job: Job = "train"
    tags: tuple[str, ...] = ()


class Histogram(NamedTuple):
    """``counts`` in equal bins over [-limit, limit], after ``epoch`` epochs and ``step`` steps."""

    name: str
    epoch: float
    step: int
    limit: float
    counts: list[int]

    @property
    def edges(self) -> list[float]:
        """The borders of the bins, one more than there are."""
        width = 2 * self.limit / len(self.counts)
        return [i * width - self.limit for i in range(len(self.counts))] + [self.limit]


@dataclass(frozen=True)
class Outcome:
    """What a logger is given at the end.

    Attributes:
        summary: numbers, truth values and texts by name; none is missing or not finite.
        histograms: of latent weights, in the order of time.
        pictures: PNG files by name.
        epochs: how many there were.
        step: the last one, from 0.
    """

    summary: dict[str, float | int | bool | str]
    histograms: list[Histogram] = field(default_factory=list)
    pictures: dict[str, Path] = field(default_factory=dict)
    epochs: int = 0
    step: int = 0


class RunLog(Logger):
    """A logger of one run, over all its stages, whose epochs and steps are counted through.

    What breaks in it while the run trains ends nothing: a warning says what is lost.

    Attributes:
        first_epoch, first_step: of the present stage in the whole run.
        broken: whether it has stopped before the run's end.
    """

    key = ""  # in the config, for messages
    first_epoch = first_step = 0
    broken = False

    def write_row(self, row: dict[str, Any], step: int) -> None:
        """Log plain values, ``epoch`` among them, at an optimiser step of the whole run."""
        raise NotImplementedError

    def write_outcome(self, outcome: Outcome) -> None:
        """Log what is known at the end."""
        raise NotImplementedError

    def begin(self, step: int) -> None:
        """Say, before anything is logged, that the run starts with, or goes on from, ``step``."""

    def end(self, status: Status) -> None:
        """Close it; the next run of this process has loggers of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:  # pyright: ignore
        row = {name: plain(value) for name, value in metrics.items()}
        if "epoch" in row:
            row["epoch"] += self.first_epoch
        self.attempt(lambda: self.write_row(row, self.first_step + (step or 0)))

    @rank_zero_only
    def log_outcome(self, outcome: Outcome) -> None:
        """Log the end of a run."""
        self.attempt(lambda: self.write_outcome(outcome))

    @rank_zero_only
    def close(self, status: Status) -> None:
        """End it, whatever has happened to it."""
        self.broken = not survives(lambda: self.end(status), self.key) or self.broken

    def attempt(self, call: Callable[[], Any]) -> None:
        """Do it, unless the logger is broken; it is from now on if it breaks."""
        if not self.broken:
            self.broken = not survives(call, self.key)


def survives(call: Callable[[], Any], what: str = "wandb") -> bool:
    """Whether a logger did what it was asked; a warning says what is lost where it did not."""
    try:
        call()
    except Exception as error:  # of processes, sockets, databases, disks: they name no common class
        text = str(error).strip().partition("\n")[0]
        log.warning(
            "%s stopped (%s: %s): the run goes on without it", what, type(error).__name__, text
        )
        return False
    return True


def plain(value: Any) -> Any:
    """A scalar tensor as a number, anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def outcome_of(result: Mapping[str, Any], folder: Path) -> Outcome:
    """What the result of a run that lies in ``folder`` tells a logger."""
    parts: dict[str, Mapping[str, Any]] = {
        "last": result["metrics"]["last"],
        "best": result["metrics"]["best"],
        "operations": result.get("operations") or {},
        "time": result.get("time") or {},
    }
    pairs = [(f"{part}/{name}", v) for part, values in parts.items() for name, v in values.items()]
    steps = (result.get("history") or {}).get("step") or []
    facts: dict[str, Any] = {name: result.get(name) for name in FACTS}
    facts |= {"commit": (result.get("git") or {}).get("commit")}
    facts |= {"fingerprint": result["fingerprint"], "seed": result["seed"]}
    facts |= result.get("choices") or {}
    return Outcome(
        summary={name: v for name, v in (dict(pairs) | facts).items() if _is_known(v)},
        histograms=sorted(_histograms(result), key=lambda each: (each.step, each.name)),
        pictures=pictures_in(folder),
        epochs=int(result.get("epochs") or 0),
        step=steps[-1] if steps else 0,
    )


def rows_of(result: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of a finished run with their steps: of each epoch, and of the final evaluation.

    Results of before have no steps in their history: there each epoch is one.
    """
    history = result.get("history") or {}
    epochs = history.get("epoch") or []
    steps = history.get("step") or list(range(len(epochs)))
    for number, (epoch, step) in enumerate(zip(epochs, steps, strict=True)):
        row = {name: column[number] for name, column in history.items() if name != "step"}
        yield {name: v for name, v in row.items() if v is not None} | {"epoch": epoch}, step
    last = {name: v for name, v in result["metrics"]["last"].items() if v is not None}
    if last:
        yield last | {"epoch": len(epochs)}, steps[-1] + 1 if steps else 0


def pictures_in(folder: Path) -> dict[str, Path]:
    """The pictures that a run, or the last stage of one that has any, left in its folder."""
    files = chain(*(sorted(f.glob("*.png")) for f in sorted(folder.glob("stage*_*/pictures"))))
    return {file.stem: file for file in (*files, *sorted((folder / "pictures").glob("*.png")))}


def _histograms(result: Mapping[str, Any]) -> Iterator[Histogram]:
    """Of all stages, their epochs and steps counted through."""
    steps = (result.get("history") or {}).get("step") or []
    before = 0
    for part in result.get("stages") or [result]:
        first = steps[before - 1] + 2 if 0 < before <= len(steps) else before  # as results count
        for layer in (part.get("statistics") or {}).get("layers") or []:
            for taken in layer["snapshots"]:
                place = before + taken["epoch"], first + taken["step"]
                yield Histogram(f"weights/{layer['name']}", *place, taken["range"], taken["counts"])
        before += int(part.get("epochs") or 0)


def _is_known(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)
