"""What a site is made of: sweeps with their results, and all runs, each by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnbench.records.store import read_result_file
from bnnbench.report.reading import Found, code_hashes, collect, read_json
from bnnbench.report.render import quoted_by
from bnnbench.report.rows import Result

Published = dict[str, Any]


@dataclass
class Sweep:
    """A sweep, its results and the published numbers beside them.

    name: of its page; local: whether it lies in the logs; quoted: `published`'s file, or None.
    """

    name: str
    local: bool
    manifest: dict[str, Any]
    found: Found
    quoted: Published | None
    note: str | None


@dataclass
class Collection:
    """All that was read.

    runs: results by the name of their file or folder. local: those that lie in the logs alone.
    problems: one line a file that could not be used.
    """

    runs: dict[str, Result] = field(default_factory=dict)
    local: set[str] = field(default_factory=set)
    sweeps: list[Sweep] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


def read(results: Path, sweeps_dir: Path, runs_dir: Path) -> Collection:
    """Everything under results/, and the sweeps of the logs; what is damaged costs itself alone."""
    found = Collection()
    _read_sweeps(found, results, sweeps_dir, runs_dir)
    for file in sorted((results / "runs").glob("*.json")):
        if file.stem not in found.runs:
            try:
                found.runs[file.stem] = read_result_file(file)
            except (ValueError, OSError) as error:
                _add(found.problems, str(error))
    known = {file.stem for file in (results / "runs").glob("*.json")}
    found.local = found.runs.keys() - known
    _tell_doubles(found)
    found.hashes = code_hashes(found.runs)
    return found


def _read_sweeps(found: Collection, results: Path, sweeps_dir: Path, runs_dir: Path) -> None:
    promoted = sorted((results / "sweeps").glob("*.json"))
    cells = set()
    for manifest in [*promoted, *sorted(sweeps_dir.glob("*/sweep.json"))]:
        local = manifest not in promoted
        folders = [results / "runs", *([runs_dir] if local else [])]
        try:
            sweep = _sweep(manifest, local, folders, results / "published")
        except Exception as error:  # whatever is wrong with one sweep, the others have their pages
            said = str(error) if isinstance(error, ValueError) else f"{manifest}: {error!r}"
            _add(found.problems, said)
            continue
        same = tuple(sorted((c["run"], c["fingerprint"]) for c in sweep.manifest["cells"]))
        if local and same in cells:  # promoted: its page is that of results/
            continue
        cells.add(same)
        found.sweeps.append(sweep)
        found.runs |= sweep.found.results
        for line in sweep.found.damaged.values():
            _add(found.problems, line)


def _sweep(manifest_path: Path, local: bool, folders: list[Path], published: Path) -> Sweep:
    manifest = read_json(manifest_path)
    name = manifest_path.parent.name if local else manifest_path.stem
    quoted, note = quoted_by(manifest, manifest_path, published)
    return Sweep(name, local, manifest, collect(manifest, folders), quoted, note)


def _tell_doubles(found: Collection) -> None:
    """Name the runs of one name in several files: each has its page, under its file's name."""
    files: dict[str, list[str]] = {}
    for key, result in found.runs.items():
        files.setdefault(str(result["name"]), []).append(key)
    for name, keys in files.items():
        if len(keys) > 1:
            where = ", ".join(f"{key}.json" for key in keys)
            _add(
                found.problems,
                f"several results call themselves {name}: {where}; delete all but one",
            )


def _add(problems: list[str], line: str) -> None:
    line = "; ".join(line.splitlines())
    if line not in problems:
        problems.append(line)
