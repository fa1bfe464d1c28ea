"""What the lines about a sweep call its runs: what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from bnnbench.records.store import Cell


def labels(cells: Sequence[Cell], swept: Sequence[str]) -> list[str]:
    """A name a cell, of the options and values that differ; empty where none does.

    Args:
        cells: the runs of a sweep.
        swept: keys whose values differ, without the seed: ``quantizer``, ``recipe.lr``.
    """
    several = len({cell.overrides.get("seed") for cell in cells}) > 1
    return [_label(cell, swept, several) for cell in cells]


def _label(cell: Cell, swept: Sequence[str], with_seed: bool) -> str:
    words = [_word(key, cell.overrides[key]) for key in swept if key in cell.overrides]
    seed = cell.overrides.get("seed")
    if words and with_seed and seed is not None:
        words.append(f"s{seed}")
    return " ".join(words)


def _word(key: str, value: str) -> str:
    """An option by its name, a value with the last part of its key."""
    return f"{key.rpartition('.')[2]}={value}" if "." in key else value
