"""The record of a sweep that its table is rendered from: `<sweeps_dir>/<sweep_name>/sweep.json`."""

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bnnbench.paths import program
from bnnbench.records.identity_keys import is_outside
from bnnbench.records.names import check_name
from bnnbench.records.store import SCHEMA, Cell
from bnnbench.sweep.expand import bare

# No swept keys where all cells that have one name the same.
PLACES = ("teacher.folder", "teacher.checkpoint")
LONGEST = 80  # letters of a name, without the digits of its hash


def telling(cells: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The overrides of each cell that say which cell it is.

    What changes no number is left out, unless the cells differ in it.
    """
    typed = [{bare(key): value for key, value in cell.items()} for cell in cells]
    values: dict[str, set[str | None]] = {}
    for key in dict.fromkeys(key for cell in typed for key in cell):
        values[key] = {cell.get(key) for cell in typed}
    dropped = {key for key, found in values.items() if len(found) == 1 and _is_silent(key)}
    return [{k: v for k, v in cell.items() if k not in dropped} for cell in typed]


def swept_keys(cells: Sequence[Cell]) -> list[str]:
    """Keys whose value differs between cells, in command-line order, without the seed."""
    values: dict[str, set[str | None]] = {}
    for key in dict.fromkeys(key for cell in cells for key in cell.overrides):
        values[key] = {cell.overrides.get(key) for cell in cells}
    for key in values.keys() & PLACES:
        values[key].discard(None)
    return [key for key, found in values.items() if key != "seed" and len(found) > 1]


def sweep_name(overrides: Sequence[Mapping[str, str]]) -> str:
    """A plain sweep's: its overrides in readable form and eight digits of their hash."""
    values: dict[str, dict[str, None]] = {}
    for cell in overrides:
        for key, value in cell.items():
            values.setdefault(key, {})[value] = None
    words = [
        _word(key, list(options))
        for key, options in values.items()
        if key != "seed" or len(options) > 1
    ]
    return f"{_shortened(words) or 'sweep'}_{_digits(overrides)}"


def table_name(
    table: str, scale: str, overrides: Sequence[Mapping[str, str]], usual: Sequence[Mapping]
) -> str:
    """A table's: `<table>_<scale>`, and what the command line changed of its `usual` cells.

    So that two command lines of one table do not write the same files.
    """
    for key, word in (("table.name", table), ("scale.name", scale)):
        check_name(key, word)
    name = f"{table}_{scale}"
    if list(overrides) == list(usual):
        return name
    known = {(key, value) for cell in usual for key, value in cell.items()}
    typed: dict[str, dict[str, None]] = {}
    for cell in overrides:
        for key, value in cell.items():
            if (key, value) not in known:
                typed.setdefault(key, {})[value] = None
    words = [_word(key, list(options), keyed=True) for key, options in typed.items()]
    return "_".join(filter(None, [name, _shortened(words), _digits(overrides)]))


def search_name(name: str, fixed: Mapping[str, str], space: Sequence[object]) -> str:
    """A search's: its option, what all trials have, and eight digits of that and of the space."""
    check_name("hparams_search.name", name)
    words = [_word(key, [value]) for key, value in fixed.items()]
    digits = _digits([{**fixed, "space": str(space)}])
    return "_".join(filter(None, ["search", name, _shortened(words), digits]))


def manifest(
    name: str,
    cells: Sequence[Cell],
    table: dict[str, Any] | None = None,
    scale: str | None = None,
    notes: str | None = None,
) -> dict[str, Any]:
    """The sweep as JSON; `table` is the resolved `cfg.table`, None for a plain `-m`.

    What the config says of all cells alike stands once, under `shared`, what it says of one under
    the cell's `settings`, so that a table knows every value of a cell that nobody has run.
    """
    shared = _shared([cell.settings for cell in cells])
    return {
        "schema": SCHEMA,
        "name": name,
        "command": f"{program()} {shlex.join(sys.argv[1:])}",
        "table": table,
        "scale": scale,
        "scale_notes": notes,
        "swept": swept_keys(cells),
        "headline": cells[0].headline if cells else None,
        "figures": (table or {}).get("figures") or ["curves"],
        "shared": shared,
        "cells": [
            {
                "overrides": cell.overrides,
                "run": cell.run,
                "fingerprint": cell.fingerprint,
                "settings": {k: v for k, v in cell.settings.items() if k not in shared},
            }
            for cell in cells
        ],
    }


def _shared(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = settings or [{}]
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def _is_silent(key: str) -> bool:
    if key.startswith("recipe."):  # a run is known by what its entry for the data set becomes
        return False
    return is_outside(key) or key in ("callbacks", "callbacks.progress_bar", "train")


def _digits(overrides: Sequence[Mapping[str, str]]) -> str:
    text = json.dumps([dict(cell) for cell in overrides])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _shortened(words: Sequence[str]) -> str:
    """The words as far as they fit; `etc` stands for the rest."""
    kept: list[str] = []
    for word in words:
        if len("_".join([*kept, word])) > LONGEST:
            return "_".join([*kept, "etc"])
        kept.append(word)
    return "_".join(kept)


def _word(key: str, options: list[str], keyed: bool = False) -> str:
    """`quantizer=a,b` -> `a-b`; many are counted, and what says nothing alone has its key.

    `seed0-1`, `compiletrue`. A folder is named by the last part of its path.
    """
    if key.endswith(".folder"):
        options = [re.sub(r"^(~|\.|\.\.)?/.*?([^/]+)/*$", r"\2", option) for option in options]
    text = "-".join(options if len(options) <= 6 else [*options[:3], f"{len(options) - 3}-more"])
    said = re.match(r"[A-Za-z]", text) and not re.match(r"(?i)(true|false|null|none)\b", text)
    named = text if said and not keyed else key.split(".")[-1] + text
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", named).strip("-")
