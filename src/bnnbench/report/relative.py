"""What a row reaches and costs beside its full-precision twin: columns that a table may ask for.

Accuracies and times are those of equal seeds, measured on the same test, and times of one kind of
machine alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnnbench.report.efficiency import Bench, file_ratio
from bnnbench.report.markup import MISSING, spread
from bnnbench.report.rows import Result, Row, lookup, percent_of
from bnnbench.report.twins import pairs, twins_of

Ratio = Callable[[Result, Result], float | None]
# What makes times and memory of two trainings comparable, beside the same test.
_MACHINE = ("device", "precision", "compiled", "world_size")


def accuracy(ours: Result, twin: Result) -> float | None:
    """Accuracy, or mAP, over the twin's."""
    return over(percent_of(ours), percent_of(twin))


def train_time(ours: Result, twin: Result) -> float | None:
    """Seconds of training over the twin's; of the processor where both were trained on one."""
    ratio = _consumed(ours, twin, "cpu_s")
    return _consumed(ours, twin, "train_s") if ratio is None else ratio


def train_memory(ours: Result, twin: Result) -> float | None:
    """Peak memory of training over the twin's."""
    return _consumed(ours, twin, "train_memory_mb")


def smaller(ours: Result, twin: Result) -> float | None:
    """The twin's bytes over the packed ones as they are counted, without scales."""
    return _counted(ours, twin, "packed_bytes")


def fewer_operations(ours: Result, twin: Result) -> float | None:
    """The twin's operations (OPs) over the row's."""
    return _counted(ours, twin, "ops")


# By the names in bnnbench.sweep.expand.TABLE_COLUMNS: header and ratio, the first in percent.
COLUMNS: dict[str, tuple[str, Ratio]] = {
    "relative": ("% of twin", accuracy),
    "train_time": ("train time / twin", train_time),
    "train_memory": ("train memory / twin", train_memory),
    "smaller": ("x smaller than twin", smaller),
    "fewer_ops": ("x fewer OPs than twin", fewer_operations),
}


def columns(
    names: Sequence[str], rows: Sequence[Row], options: Sequence[str]
) -> list[tuple[str, Callable[[Row], str]]]:
    """The columns of these names for the rows of a table; others than ``COLUMNS`` are left out."""
    found = {id(row): twin for row, twin in zip(rows, twins_of(rows, options), strict=True)}

    def column(name: str) -> tuple[str, Callable[[Row], str]]:
        header, ratio = COLUMNS[name]
        factor = 100 if name == "relative" else 1

        def text(row: Row) -> str:
            values = ratios(row, found.get(id(row)), ratio)
            return spread([factor * value for value in values])

        return header, text

    return [column(name) for name in names if name in COLUMNS]


def ratios(row: Row, twin: Row | None, ratio: Ratio) -> list[float]:
    """A ratio to the twin of every seed that both finished; none without a twin."""
    found = [ratio(*pair) for pair in pairs(row, twin)] if twin is not None else []
    return [value for value in found if value is not None]


def over(first: float | None, second: float | None) -> float | None:
    """A quotient; None where a part is unknown, or the second is 0."""
    return None if first is None or not second else first / second


def file_column(bench: Bench | None) -> tuple[str, Callable[[Row], str]]:
    """Bytes of the float network over those of the packed file, of networks in a bench file."""

    def text(row: Row) -> str:
        found = (file_ratio(result, bench) for result in row.results)
        value = next(filter(None, found), None)  # seeds have files of one size
        return MISSING if value is None else f"{value:.1f}"

    return "x smaller file", text


def _consumed(ours: Result, twin: Result, key: str) -> float | None:
    if any(ours.get(fact) != twin.get(fact) for fact in _MACHINE):
        return None
    return over(lookup(ours, "time", key), lookup(twin, "time", key))


def _counted(ours: Result, twin: Result, key: str) -> float | None:
    return over(lookup(twin, "operations", key), lookup(ours, "operations", key))
