"""Copy a finished sweep from the logs into results/, which is committed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bnnbench.report.render import find_result, read_json
from bnnbench.report.rows import lookup


def promote(
    name: str, sweeps_dir: Path, runs_dir: Path, results_dir: Path, allow_dirty: bool = False
) -> list[Path]:
    """Copy a sweep's manifest, its finished results and their pictures; returns what was written.

    Histories stay in the results, so that tables and curves can be drawn again from them.
    Cells that are not finished are left out and show as missing.

    Raises:
        FileNotFoundError: there is no such sweep; the message lists those that exist.
        ValueError: nothing is finished, or a result does not say which commit measured it
            (accepted with allow_dirty). Nothing is copied then.
    """
    manifest_path = sweeps_dir / name / "sweep.json"
    if not manifest_path.is_file():
        known = ", ".join(sorted(p.parent.name for p in sweeps_dir.glob("*/sweep.json"))) or "none"
        raise FileNotFoundError(f"no sweep {name!r} in {sweeps_dir}; there are: {known}")
    finished = _finished(read_json(manifest_path), runs_dir)
    if not finished:
        raise ValueError(f"sweep {name!r} has no finished run in {runs_dir}: run it first")
    complaints = [line for path in finished.values() for line in _complaints(path)]
    if complaints and not allow_dirty:
        raise ValueError(
            f"sweep {name!r} cannot be traced to a commit:\n  "
            + "\n  ".join(complaints)
            + "\ncommit the code and run these with force=true, or promote with allow_dirty=true"
        )
    copies = {results_dir / "sweeps" / f"{name}.json": manifest_path}
    copies |= {results_dir / "runs" / f"{run}.json": path for run, path in finished.items()}
    copies |= {
        results_dir / "figures" / f"{run}_{picture.name}": picture
        for run, path in finished.items()
        for picture in sorted(path.parent.glob("**/pictures/*.png"))  # the last stage's stay
    }
    for target, source in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return list(copies)


def _finished(manifest: dict[str, Any], runs_dir: Path) -> dict[str, Path]:
    found = {cell["run"]: find_result(cell, [runs_dir]) for cell in manifest["cells"]}
    return {run: path for run, path in found.items() if path}


def _complaints(path: Path) -> list[str]:
    result = read_json(path)
    if not lookup(result, "git", "commit"):
        return [f"{path}: no git commit"]
    if lookup(result, "git", "dirty") is not False:
        return [f"{path}: measured with uncommitted changes"]
    return []
