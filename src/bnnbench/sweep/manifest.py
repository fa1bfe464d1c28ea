"""The record of a sweep that its table is rendered from: `<sweeps_dir>/<sweep_name>/sweep.json`."""

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from bnnbench.records.store import SCHEMA, Cell
from bnnbench.sweep.expand import bare

# Settings that change no number: they neither name a sweep nor stand in its table.
NEUTRAL = ("force", "logger", "paths", "tags", "callbacks", "compile", "table", "scale", "train")

PLACES = ("teacher.folder", "teacher.checkpoint")  # of no interest where all cells name the same


def telling(overrides: dict[str, str]) -> dict[str, str]:
    """The overrides that say which cell this is."""
    return {bare(k): v for k, v in overrides.items() if bare(k).split(".")[0] not in NEUTRAL}


def swept_keys(cells: Sequence[Cell]) -> list[str]:
    """Keys whose value differs between cells, in command-line order, without the seed."""
    values: dict[str, set[str | None]] = {}
    for key in dict.fromkeys(key for cell in cells for key in cell.overrides):
        values[key] = {cell.overrides.get(key) for cell in cells}
    for key in values.keys() & PLACES:
        values[key].discard(None)
    return [key for key, found in values.items() if key != "seed" and len(found) > 1]


def sweep_name(cells: Sequence[Cell], table: str | None = None, scale: str | None = None) -> str:
    """`<table>_<scale>`, or the overrides in readable form and eight digits of their hash."""
    if table is not None:
        return f"{table}_{scale}"
    overrides = [cell.overrides for cell in cells]
    digest = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:8]
    values: dict[str, dict[str, None]] = {}
    for cell in cells:
        for key, value in cell.overrides.items():
            values.setdefault(key, {})[value] = None
    words = [
        _word(key, list(options))
        for key, options in values.items()
        if key != "seed" or len(options) > 1
    ]
    readable = "_".join(words)
    return f"{readable}_{digest}" if 0 < len(readable) <= 80 else f"sweep_{digest}"


def manifest(
    name: str,
    cells: Sequence[Cell],
    table: dict[str, Any] | None = None,
    scale: str | None = None,
    notes: str | None = None,
) -> dict[str, Any]:
    """The sweep as JSON; `table` is the resolved `cfg.table`, None for a plain `-m`."""
    return {
        "schema": SCHEMA,
        "name": name,
        "command": shlex.join(["python", *sys.argv]),
        "table": table,
        "scale": scale,
        "scale_notes": notes,
        "swept": swept_keys(cells),
        "cells": [
            {"overrides": c.overrides, "run": c.run, "fingerprint": c.fingerprint} for c in cells
        ],
    }


def _word(key: str, options: list[str]) -> str:
    """`quantizer=a,b` -> `a-b`; values that are not names keep their key: `seed0-1`."""
    text = "-".join(options)
    named = text if re.match(r"[A-Za-z]", text) else key.split(".")[-1] + text
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", named).strip("-")
