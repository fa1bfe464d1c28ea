"""Thousands of results to measure reports with: the committed ones again, under new names.

python tools/many_results.py /tmp/many 2000        # as many sweeps as that takes
python tools/many_results.py /tmp/many 2000 one    # one sweep of so many seeds
python src/report.py paths.log_dir=/tmp/many paths.results_dir=/tmp/many/results
"""

from __future__ import annotations

import json
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
ONE = "digits_all_methods"  # the sweep that is made long


def copied(name: str, number: int, folder: Path) -> list[dict[str, Any]]:
    """Write the results of a committed sweep with another seed; its cells."""
    cells = []
    for cell in read(RESULTS / "sweeps" / f"{name}.json")["cells"]:
        measured = RESULTS / "runs" / f"{cell['run']}.json"
        if not measured.is_file():  # the sweep has a cell that was never run
            continue
        result = read(measured)
        run, seed = f"{cell['run']}_{number}", int(cell["overrides"].get("seed", 0)) + number
        result |= {"name": run, "seed": seed}
        write(folder / "runs" / run / "result.json", result)
        overrides, settings = cell["overrides"] | {"seed": str(seed)}, cell["settings"]
        cells.append(cell | {"overrides": overrides, "run": run, "settings": settings})
    return cells


def make(folder: Path, runs: int, one: bool) -> int:
    """Write sweeps with at least ``runs`` results; how many they have."""
    shutil.copytree(RESULTS / "published", folder / "results" / "published", dirs_exist_ok=True)
    names = [ONE] if one else sorted(path.stem for path in (RESULTS / "sweeps").glob("*.json"))
    made, together = 0, []
    for number in count():
        for name in names:
            if made >= runs:
                if one:
                    sweep(folder, ONE, ONE, together)
                return made
            cells = copied(name, number, folder)
            made, together = made + len(cells), together + cells
            if not one:
                sweep(folder, name, f"{name}_{number}", cells)
    return made


def sweep(folder: Path, source: str, name: str, cells: list[dict[str, Any]]) -> None:
    """Write a manifest in the form of a committed one."""
    manifest = read(RESULTS / "sweeps" / f"{source}.json") | {"name": name, "cells": cells}
    write(folder / "sweeps" / name / "sweep.json", manifest)


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in a folder of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["one"]), "results")
