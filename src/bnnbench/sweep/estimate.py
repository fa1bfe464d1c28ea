"""How long a sweep will take, from the epochs that its runs have measured."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from bnnbench.sweep.watched import AT_WORK, Seen, at_work


def time_left(cells: Sequence[Seen], workers: int) -> float | None:
    """Seconds until the last cell has ended, with ``workers`` runs side by side.

    Runs that have measured no epoch yet are taken for the mean of those that have. None as long as
    there is none such, or where it is unknown how many epochs a run has.
    """
    waiting = [cell for cell in cells if cell.state == "waiting"]
    running = [cell for cell in cells if cell.state in AT_WORK]
    rate = epoch_s(cells)
    lefts = [_left(cell, rate) for cell in (*running, *waiting)]
    if not lefts:
        return 0.0
    known = [left for left in lefts if left is not None]
    if len(known) < len(lefts):
        return None
    return in_all(known[len(running) :], workers, known[: len(running)])


def in_all(waiting: Sequence[float], workers: int, running: Sequence[float] = ()) -> float:
    """Seconds until runs of so many seconds have ended that begin in turn, beside ``running``."""
    free = max(workers, len(running), 1) - len(running)
    ends = [*running, *([0.0] * free)]
    heapq.heapify(ends)
    for left in waiting:  # each begins where the first of the others ends
        heapq.heapreplace(ends, ends[0] + left)
    return max(ends)


def epoch_s(cells: Sequence[Seen]) -> float | None:
    """Mean seconds of an epoch over the cells of this sweep that have measured any."""
    rates = [rate for cell in cells if (rate := _rate(cell)) is not None]
    return sum(rates) / len(rates) if rates else None


def _rate(cell: Seen) -> float | None:
    if (position := cell.position or cell.first) is not None:
        return position.epoch_s
    return cell.train_s / cell.epochs if cell.train_s is not None and cell.epochs else None


def _left(cell: Seen, rate: float | None) -> float | None:
    position = cell.position
    if position is not None and position.left_s is not None:
        return position.left_s
    if cell.epochs is None or rate is None:
        return 0.0 if cell.epochs == 0 else None
    own = rate * max(0, cell.epochs - (position.epoch if position else 0))
    if cell.first is None:
        return own
    first = _left(at_work("", cell.first), rate)
    return None if first is None else first + own
