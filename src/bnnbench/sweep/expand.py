"""From a command line, or a table and a scale, to one set of overrides per cell.

An override is a pair `key: value` of strings as typed on a command line. Later layers win:
table.common < a line of table.sweep < scale.overrides and scale.seeds <
table.scales.<scale>.common < a line of table.scales.<scale>.own_sweep < the user's own
command line.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

# Command-line words -> the product of their sweeps, as Hydra expands it (given by the plugin).
Split = Callable[[Sequence[str]], list[dict[str, str]]]

TABLE_KEYS = {"name", "title", "published", "notes", "columns", "figures", "common", "sweep"}
TABLE_KEYS |= {"scales"}
# Drawn for a table that asks, the names of bnnbench.report.render.FIGURES.
TABLE_FIGURES = {"curves", "scores", "ranks", "classes", "pareto", "kernels", "layers", "binarized"}
TABLE_FIGURES |= {"diagnostics", "sensitivity", "reliability"}
# Beside those of every table; published_* are what papers print of sizes and operations, the four
# short ones what a classifier's probabilities are worth, the last six compare with the twin.
TABLE_COLUMNS = {
    "compression",
    "compression_with_scales",
    "nll",
    "brier",
    "ece",
    "top5",
    "published_params_mb",
    "published_mflops",
    "relative",
    "train_time",
    "train_memory",
    "smaller",
    "fewer_ops",
    "smaller_file",
}
TABLE_SCALE_KEYS = {"sweep", "own_sweep", "common", "note", "own_note"}
SCALE_KEYS = {"name", "overrides", "seeds", "note"}
NOT_OF_A_JOB = (
    "table",
    "scale",
    "hparams_search",
)  # what a table's cells are made of, not part of any of them


def expand_plain(arguments: Sequence[str], split: Split) -> list[dict[str, str]]:
    """The cells of a plain `-m` command line."""
    return [_without(cell, "scale", "hparams_search") for cell in split(arguments)]


def expand_table(
    table: dict[str, Any],
    scale: dict[str, Any],
    arguments: Sequence[str],
    split: Split,
    defaults: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """The cells of a table at a scale, in the table's order; `arguments` is the user's line.

    A choice (`quantizer=adabin`) that lines have keeps those lines, with their options; one that no
    line has replaces that of every line. A line has what it, `common` and the scale set, and the
    `defaults` of the groups that these leave alone. Raises ValueError for a key that a table or
    scale does not have and for a table without lines.
    """
    rows, typed, usual = table_rows(table, scale, split), split(arguments), dict(defaults or {})
    every = [usual | cell for row in rows for cell in row]
    cells: list[dict[str, str]] = []
    for row, own_line in product(rows, typed):
        kept = [cell for cell in row if _stays(usual | cell, own_line, every)]
        cells += layered([kept, [own_line]])
    return [_without(cell, *NOT_OF_A_JOB) for cell in distinct(cells)]


def table_rows(
    table: dict[str, Any], scale: dict[str, Any], split: Split
) -> list[list[dict[str, str]]]:
    """For each row of the table its cells at the scale, several where the scale sweeps."""
    check_keys(table, scale)
    own = (table.get("scales") or {}).get(scale["name"]) or {}
    seeds = [f"seed={','.join(map(str, scale['seeds']))}"] if scale.get("seeds") else []
    between = [
        split([*(scale.get("overrides") or []), *seeds]),
        split(own.get("common") or []),
    ]
    lines = own.get("own_sweep") or own.get("sweep") or table.get("sweep")
    if not lines:
        raise ValueError(f"table {table['name']} has no lines: write them under `sweep:`")
    common = split(table.get("common") or [])
    pairs = [pair for line in lines for pair in product(common, split(shlex.split(line)))]
    on_top = bool(own.get("own_sweep"))  # lines that the scale does not change
    return [
        layered([[shared], [line], *between, [line] if on_top else [{}]]) for shared, line in pairs
    ]


def _stays(row: dict[str, str], typed: dict[str, str], every: list[dict[str, str]]) -> bool:
    """Whether a row has each typed choice of a group that any row has; others are overrides."""
    for key, value in typed.items():
        held = "." not in key and any(other.get(key) == value for other in every)
        if held and row.get(key) != value:
            return False
    return True


def scale_notes(table: dict[str, Any], scale: dict[str, Any]) -> str | None:
    """What this scale stands in for: the scale's words and the table's `note`, or `own_note`."""
    own = (table.get("scales") or {}).get(scale["name"]) or {}
    if own.get("own_note"):  # where the scale's words are not true of the table
        return own["own_note"]
    return " ".join(note for note in (scale.get("note"), own.get("note")) if note) or None


def layered(layers: Iterable[list[dict[str, str]]]) -> list[dict[str, str]]:
    """The product of the layers' sweeps; in each cell the later value of a key wins."""
    cells = []
    for choice in product(*layers):
        merged = {bare(key): (key, value) for cell in choice for key, value in cell.items()}
        cells.append(dict(merged.values()))
    return distinct(cells)


def distinct(cells: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The cells without those that repeat an earlier one, in whatever order its keys stand."""
    found: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
    for cell in cells:
        found.setdefault(frozenset(cell.items()), cell)
    return list(found.values())


def bare(key: str) -> str:
    """The key without the marks that add (`+key`, `++key`) or delete (`~key`) it."""
    return key.lstrip("+~")


def check_keys(table: dict[str, Any], scale: dict[str, Any]) -> None:
    """Refuse keys that nothing reads: a mistyped `comon:` would silently change a table."""
    _refuse_unknown(f"table {table.get('name')}", table, TABLE_KEYS)
    _refuse_unknown(f"scale {scale.get('name')}", scale, SCALE_KEYS)
    _refuse_unknown(
        f"table {table.get('name')}, columns", table.get("columns") or [], TABLE_COLUMNS
    )
    _refuse_unknown(
        f"table {table.get('name')}, figures", table.get("figures") or [], TABLE_FIGURES
    )
    for name, part in (table.get("scales") or {}).items():
        _refuse_unknown(f"table {table.get('name')}, scales.{name}", part, TABLE_SCALE_KEYS)


def _refuse_unknown(where: str, node: Iterable[str], known: set[str]) -> None:
    if unknown := sorted(set(node) - known):
        raise ValueError(f"{where}: no such key {unknown}; there are {sorted(known)}")


def _without(cell: dict[str, str], *keys: str) -> dict[str, str]:
    return {k: v for k, v in cell.items() if bare(k) not in keys}
