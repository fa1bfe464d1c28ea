"""How long a sweep will take."""

from __future__ import annotations

import pytest

from bnnbench.records.position import Position
from bnnbench.sweep.estimate import epoch_s, time_left
from bnnbench.sweep.watched import Seen


def at(left: float | None, rate: float | None = 2.0, epoch: int = 5) -> Seen:
    position = Position(epoch, 10, epoch_s=rate, left_s=left)
    return Seen("net", "training", 10, position)


DONE = Seen("net", "finished", 10, train_s=20.0)
WAITS = Seen("net", "waiting", 10)
LONG = Seen("net", "waiting", 100)
START = Seen("net", "starting", 10)


def behind(left: float | None, rate: float | None) -> Seen:
    """A cell whose twin is trained first, of which 5 of 10 epochs are done."""
    return Seen("net", "starting", 10, first=Position(5, 10, epoch_s=rate, left_s=left))


@pytest.mark.parametrize(
    ("cells", "workers", "left"),
    [
        ([], 1, 0.0),
        ([DONE, DONE], 2, 0.0),
        ([WAITS, WAITS], 2, None),  # nothing has been measured
        ([at(None, None), WAITS], 1, None),
        ([at(7.0)], 1, 7.0),
        ([at(7.0), at(9.0)], 2, 9.0),
        ([at(7.0), WAITS], 1, 27.0),
        ([at(7.0), at(9.0), WAITS, WAITS], 2, 29.0),
        ([at(7.0), WAITS], 4, 20.0),
        ([DONE, START], 1, 20.0),
        ([DONE, at(None, None, epoch=5)], 1, 10.0),
        ([at(7.0), Seen("net", "waiting", None)], 1, None),
        ([at(7.0), Seen("net", "waiting", 0)], 1, 7.0),  # it only counts
        ([at(8.0), WAITS, LONG], 2, 208.0),
        ([behind(9.0, 2.0)], 1, 29.0),
        ([behind(None, None)], 1, None),
        ([behind(None, None), DONE], 1, 30.0),  # the rest of the twin, then its own
        ([at(1.0), at(1.0), at(1.0), WAITS], 1, 21.0),  # a cluster runs more than was known
    ],
)
def test_time_left(cells: list[Seen], workers: int, left: float | None) -> None:
    assert time_left(cells, workers) == left


def test_the_mean_of_what_was_measured() -> None:
    assert epoch_s([DONE, at(7.0, 4.0), WAITS, Seen("net", "reused", 0, train_s=3.0)]) == 3.0
    assert epoch_s([WAITS]) is None
