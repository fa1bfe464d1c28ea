"""Which of a run's checkpoints training goes on from: the last whole one that is known to be good.

``last.ckpt`` is rewritten after every epoch, and the one before it stays beside it, as
``previous.ckpt``, until the run has finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from bnnbench.records.durable import sync_folder
from bnnbench.records.signature import (
    BadCheckpoint,
    DamagedCheckpoint,
    Signature,
    check_signature,
    other_torch,
    read_checkpoint,
)
from bnnbench.records.store import last_weights, previous_weights


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        file: the checkpoint that it goes on from; None from the beginning.
        steps: optimiser steps that this one holds.
        epochs: finished epochs that it holds.
    """

    file: Path | None = None
    steps: int = 0
    epochs: int = 0


def start_of(folder: Path, signature: Signature) -> tuple[Start, list[str]]:
    """Where an interrupted run or stage in ``folder`` goes on, and what it has to be told.

    A damaged checkpoint gives way to the one before it, and that one to a start from the beginning,
    with a line each; it stays as ``damaged_<name>`` until the run has finished. The one that is
    gone on from is, or becomes, ``last.ckpt``.

    Raises:
        BadCheckpoint: a whole one that is not this run's, or may not be read.
    """
    last, warnings = last_weights(folder), []
    for file, then in (
        (last, "the checkpoint before it is taken, if there is one"),
        (previous_weights(folder), "training starts from the beginning"),
    ):
        if not file.exists():
            continue
        try:
            content = check_signature(file, signature)
        except DamagedCheckpoint as error:
            warnings.append(f"{_reason(error)}: {then}")
            _move(file, file.with_name(f"damaged_{file.name}"))
            continue
        if file != last:
            _move(file, last)
        if (wrote := other_torch(content)) is not None:
            warnings.append(
                f"{last} was written with torch {wrote} and goes on with {torch.__version__}: the "
                "numbers may not be those of a run in one version"
            )
        return Start(last, int(content["global_step"]), int(content["epoch"]) + 1), warnings
    return Start(), warnings


@rank_zero_only
def keep_good(folder: Path, steps: int) -> int | None:
    """Leave no checkpoint in ``folder`` that training could not go on from; the last one's epoch.

    Args:
        folder: of the checkpoints.
        steps: number of optimiser steps after which the weights are known to be good. A
            ``last.ckpt`` of more gives way to the one before it, which was good when the last one
            was written. One of a later epoch with none before it has taken that one's place: it
            is good, too.

    Returns:
        The epoch, from 0, of the checkpoint that is kept; None without one.
    """
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    found = _content(last)
    if found is None or found["global_step"] > steps:
        if (before := _content(previous)) is not None:
            _move(previous, last)
            found = before
        elif found is None or found["epoch"] == 0:
            last.unlink(missing_ok=True)
            return None
    return int(found["epoch"])


@rank_zero_only
def tidy(folder: Path) -> None:
    """Delete what a finished run or stage does not need: it would double the disk of a sweep."""
    last = last_weights(folder)
    for file in (previous_weights(folder), *last.parent.glob("damaged_*.ckpt")):
        file.unlink(missing_ok=True)


def _content(file: Path) -> dict[str, Any] | None:
    try:
        return read_checkpoint(file)
    except BadCheckpoint:
        return None


@rank_zero_only
def _move(file: Path, place: Path) -> None:
    file.replace(place)
    sync_folder(place.parent)


def _reason(error: DamagedCheckpoint) -> str:
    """What is wrong with a file, in a line, without what to do about it."""
    return " ".join(str(error).split("; ")[0].split())
