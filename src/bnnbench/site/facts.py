"""What results are compared by, in words: network, data, bits, length, structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnnbench.report.notes import STRUCTURE
from bnnbench.report.rows import Result, lookup, plain
from bnnbench.report.tables import width

_UNTOLD = {"head_norm": False, "padding_value": 0, "first": "fp32", "last": "fp32"}


def backbone_of(result: Result) -> str:
    """The network: a library's by its model, one of other widths with these."""
    model, widths = (lookup(result, "config", "backbone", key) for key in ("model", "widths"))
    name = str(model or result["choices"].get("backbone"))
    return f"{name} {plain(widths)}" if widths else name


def dataset_of(result: Result) -> str:
    """The data set, with its folder where that says which, and what was held out."""
    name, folder = (
        str(result["choices"].get("dataset")),
        lookup(result, "config", "dataset", "folder"),
    )
    name = f"{name} {Path(str(folder)).name}" if folder else name
    held_out = (result.get("headline") or "").startswith("val/")
    return f"{name}, held-out images" if held_out else name


def bits_of(entry: dict[str, Any]) -> str:
    """W/A bits of a result or published row; gradients and errors as well where they have few."""
    bits, bases = entry.get("bits") or {}, entry.get("bases") or {}
    sides = ("w", "a", "g", "e") if {"g", "e"} & set(bits) else ("w", "a")
    return width((bits.get(side, 32), bases.get(side) or 1) for side in sides) if bits else "?"


def budget_of(result: Result) -> str:
    """The length of a training in epochs, and what cut it."""
    epochs, ended = result.get("epochs"), result.get("ended")
    unit = "epoch" if epochs == 1 else "epochs"
    return f"{epochs} {unit}, ended by {ended}" if ended else f"{epochs} {unit}"


def structure_of(result: Result) -> str:
    """What a network is built of besides the method; what is usual is not told."""
    parts = result.get("structure") or {}
    told = {key: value for key, value in parts.items() if _UNTOLD.get(key, key) != value}
    words = (f"{STRUCTURE.get(key, key)} {plain(v)}" for key, v in told.items() if v is not None)
    return ", ".join(words)
