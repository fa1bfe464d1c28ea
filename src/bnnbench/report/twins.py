"""Each row's full-precision twin in the same table, and how far the row stays below it.

The twin is the fp32 row of the same backbone, data, recipe and structure; where no fp32 row has the
recipe's name, one whose recipe has the same values. A network without any nonlinearity beside its
signs would be linear without them: its twin has a ReLU in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bnnbench.records.schema import TWINS_TOO
from bnnbench.report.rows import (
    OF_SETTINGS,
    OF_TRAINING,
    Result,
    Row,
    dataset_of,
    lookup,
    percent_of,
    plain,
)

# A recipe's name trains nothing, nor do entries of all data sets, of which the run has its own.
_UNTRAINED = ("recipe.name", "recipe.epochs", "recipe.batch_size", "recipe.twin")
# Swept, these are the twin's as well: it was trained and tested the same way.
_SHARED = ("recipe.", "dataset.", "trainer.")
# Results that differ in one of these were not measured alike.
_ALIKE = ("headline", "epochs", "train_images", "test_images", "data_stamp")


@dataclass(frozen=True)
class Gap:
    """Points that a row stays below its twin, by seed; why, where there are none.

    The row of the twin itself has neither.
    """

    points: dict[int, float] = field(default_factory=dict)
    reason: str = ""


def gaps(rows: Sequence[Row], options: Sequence[str] = ()) -> list[Gap]:
    """The gap of every row, in points of the headline (accuracy or mAP) of the last epoch.

    options: the swept keys; of several possible twins the one counts that has the row's values.
    """
    twins = [row for row in rows if row.cells and _is_twin(row)]
    return [_gap(row, twins, options) for row in rows]


def twins_of(rows: Sequence[Row], options: Sequence[str] = ()) -> list[Row | None]:
    """The twin of every row; None for twins themselves and where there is none or not one alone.

    options: as of ``gaps``.
    """
    twins = [row for row in rows if row.cells and _is_twin(row)]
    found = [_own(row, twins, options) if row.cells and not _is_twin(row) else [] for row in rows]
    return [own[0] if len(own) == 1 else None for own in found]


def pairs(row: Row, twin: Row) -> list[tuple[Result, Result]]:
    """Results of a row and its twin of the same seed, measured on the same test."""
    ours, theirs = scores(row), scores(twin)
    return [(ours[seed][1], theirs[seed][1]) for seed in paired(row, twin)]


def scores(row: Row) -> dict[int, tuple[float, Result]]:
    """Percent of the headline in the last epoch, and the result, by seed."""
    found: dict[int, tuple[float, Result]] = {}
    for result in row.results:
        value = percent_of(result)
        if value is not None and result.get("seed") is not None:
            found[int(result["seed"])] = value, result
    return found


def paired(first: Row, second: Row) -> dict[int, float]:
    """First minus second in points, by the seeds that both finished on the same test.

    The same test: headline, epochs, numbers of images and content of the data are equal, as far
    as both results say.
    """
    ours, theirs = scores(first), scores(second)
    return {
        seed: ours[seed][0] - theirs[seed][0]
        for seed in sorted(ours.keys() & theirs.keys())
        if _alike(ours[seed][1], theirs[seed][1])
    }


def structure(row: Row) -> dict[str, Any]:
    """The network that a row's method stands in: backbone and what it is built of."""
    result = row.results[0] if row.results else {}
    found = {"backbone": row.choice("backbone")}
    for key in TWINS_TOO:
        found[key] = row.nested(f"backbone.{key}")
        if found[key] is None:
            found[key] = lookup(result, "structure", key)
    return found


def reasons(rows: Sequence[Row], found: Sequence[Gap]) -> list[str]:
    """Why rows have no gap, a line a reason that names their methods."""
    named: dict[str, list[str]] = {}
    for row, gap in zip(rows, found, strict=True):
        if gap.reason:
            named.setdefault(gap.reason, []).append(row.choice("quantizer") or "?")
    return [f"{why}: {', '.join(dict.fromkeys(names))}" for why, names in named.items()]


def _is_twin(row: Row) -> bool:
    return row.choice("quantizer") == "fp32"


def _own(row: Row, twins: list[Row], options: Sequence[str]) -> list[Row]:
    """The twins that a row's structure and options leave: one, where all is well."""
    placed = [twin for twin in twins if _place(twin) == _place(row)]
    named = [twin for twin in placed if twin.choice("recipe") == row.choice("recipe")]
    own = named or [twin for twin in placed if _values(twin) == _values(row) is not None]
    for key in options:
        alike = [twin for twin in own if twin.text(key) == row.text(key)]
        if key.startswith(_SHARED) or (alike and key != "quantizer"):
            own = alike
    return own


def _gap(row: Row, twins: list[Row], options: Sequence[str]) -> Gap:
    if _is_twin(row) or not row.cells:
        return Gap()
    own = _own(row, twins, options)
    if not own:
        return Gap(reason="no fp32 row of its structure and settings")
    if len(own) > 1:
        return Gap(reason="several fp32 rows of its structure")
    if not row.results:
        return Gap(reason="not measured")
    if not own[0].results:
        return Gap(reason="its fp32 row is not measured")
    if not scores(row).keys() & scores(own[0]).keys():
        return Gap(reason="no seed in common with its fp32 row")
    points = paired(own[0], row)
    return Gap(points, "" if points else "other epochs or data than its fp32 row")


def _place(row: Row) -> dict[str, str]:
    """What a row and its twin share, beside the recipe."""
    built = structure(row)
    if built["nonlinearity"] == "identity" and not _is_twin(row):
        built["nonlinearity"] = "relu"
    return {"dataset": dataset_of(row)} | {key: plain(value) for key, value in built.items()}


def _values(row: Row) -> dict[str, Any] | None:
    """What a row is trained with; None where the values of its recipe are not known."""
    found = {
        key: value
        for key, value in row.settings.items()
        if key.startswith(OF_TRAINING) and not key.startswith(_UNTRAINED)
    }
    return found if any(key.startswith(OF_SETTINGS) for key in found) else None


def _alike(first: Result, second: Result) -> bool:
    pairs = [(first.get(key), second.get(key)) for key in _ALIKE]
    return all(a == b for a, b in pairs if a is not None and b is not None)
