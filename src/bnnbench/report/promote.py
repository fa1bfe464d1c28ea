"""Copy a finished sweep from the logs into results/, which is committed."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnnbench.records.names import check_name
from bnnbench.records.store import read_result_file, write_json
from bnnbench.report.reading import find_result, read_json
from bnnbench.report.rows import Result, lookup

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Ends of files beside a sweep's own.
_TAKEN = ("_scores", "_ranks", "_classes", "_pareto", "_kernels", "_layers", "_binarized")
_TAKEN += ("_runs", "_conclusions", "_sensitivity", "_diagnostics", "_reliability")
_FIXED = ("index", "table", "efficiency", "efficiency_layers")


def promote(
    name: str,
    sweeps_dir: Path,
    runs_dir: Path,
    results_dir: Path,
    allow_dirty: bool = False,
    allow_partial: bool = False,
    stored_as: str | None = None,
    title: str | None = None,
    not_run: str | None = None,
) -> list[Path]:
    """Copy a sweep's manifest, its finished results and their pictures; returns what was written.

    Histories stay in the results, so that tables and curves can be drawn again from them.
    Cells that are not finished are left out and show as missing; damaged ones are named on stderr.

    Args:
        name: the sweep's folder in sweeps_dir.
        allow_dirty: take results that do not say which commit measured them.
        allow_partial: take results of runs that ended early or saw part of the data.
        stored_as: a telling name to store it under; None: its own.
        title: its table's; None: the one it has or had when it was promoted before.
        not_run: why its other cells have no result, for the notes of its table, such as
            "budget"; None: what was said before.

    Raises:
        FileNotFoundError: there is no such sweep; the message lists those that exist.
        ValueError: nothing is finished; a result does not say which commit measured it, or ended
            early; the name is none, or another sweep's. Nothing is copied then.
    """
    check_name("promote", name)
    manifest = read_json(_manifest_path(name, sweeps_dir))
    stored = name if stored_as is None else _checked_name(stored_as)
    target = results_dir / "sweeps" / f"{stored}.json"
    before = _before(target, manifest)
    finished = _finished(manifest, runs_dir)
    if not finished:
        raise ValueError(f"sweep {name!r} has no finished run in {runs_dir}: run it first")
    complaints = _complaints(name, finished, allow_dirty, allow_partial)
    if complaints:
        raise ValueError(complaints)
    records = {run: results_dir / "runs" / f"{run}.json" for run in finished}
    standing = {run: read_result_file(file) for run, file in records.items() if file.is_file()}
    for run, stands in standing.items():
        _check_same_data(records[run], stands, *finished[run])
    copies = {records[run]: path for run, (path, _) in finished.items()}
    copies |= {
        results_dir / "figures" / f"{run}_{picture.name}": picture
        for run, (path, _) in finished.items()
        for picture in _pictures(path.parent)
    }
    title = title or manifest.get("title") or before.get("title")
    not_run = not_run or before.get("not_run")
    said = {"title": title, "not_run": not_run}
    manifest |= {"name": stored} | {key: text for key, text in said.items() if text}
    write_json(target, manifest)
    for copy, source in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    for run, (_, result) in finished.items():
        proofs = _proofs(standing.get(run, {}), result)
        if proofs or result.get("export"):  # neither of which the run's own file knows
            write_json(records[run], result | proofs)
    return [target, *copies]


def continued(copied: Iterable[Path]) -> list[str]:
    """A line for each of the promoted results that went on from a finished run: of which."""
    results = (read_result_file(path) for path in copied if path.parent.name == "runs")
    return [
        f"{result['name']} is a continued run: it goes on from {before['name']} after its "
        f"{before['epochs']} epochs"
        for result in results
        if (before := result.get("continued"))
    ]


def _pictures(folder: Path) -> list[Path]:
    """A run's own, without links to what lies elsewhere; those of its last stage stay."""
    found, home = sorted(folder.glob("**/pictures/*.png")), folder.resolve()
    return [picture for picture in found if picture.resolve().is_relative_to(home)]


def _check_same_data(target: Path, stands: Result, source: Path, result: Result) -> None:
    """Refuse to replace a promoted run by the same one on other data."""
    before = stands.get("data_stamp")
    if None not in (before, result["data_stamp"]) and before != result["data_stamp"]:
        raise ValueError(
            f"{target} is this run on other data of the same name than {source}: the tables that "
            "hold it would change. Run the sweep where the first lies, which tells them apart"
        )


def _proofs(stands: Result, result: Result) -> dict[str, Any]:
    """What the promoted result of the same training has been proved to belong to since then."""
    if result.get("source_proofs") or not stands.get("source_proofs"):
        return {}
    if any(stands[key] != result[key] for key in ("fingerprint", "git", "time", "metrics")):
        return {}
    return {key: stands[key] for key in ("source_hash", "source_proofs")}


def _manifest_path(name: str, sweeps_dir: Path) -> Path:
    path = sweeps_dir / name / "sweep.json"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in sweeps_dir.glob("*/sweep.json"))) or "none"
        raise FileNotFoundError(f"no sweep {name!r} in {sweeps_dir}; there are: {known}")
    return path


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"as={name}: a name has letters, digits, - and _ only")
    if name in _FIXED or name.startswith("overall_scores") or name.endswith(_TAKEN):
        raise ValueError(f"as={name}: tables and figures of other sweeps have such names")
    return name


def _before(target: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest that stands under the name already, {} for none; another sweep is refused."""
    if not target.is_file():
        return {}
    before = read_json(target)
    typed = [[cell["overrides"] for cell in one["cells"]] for one in (before, manifest)]
    if before["command"] != manifest["command"] and typed[0] != typed[1]:
        raise ValueError(
            f"{target} is another sweep ({before['command']}): store this one as=<another name>"
        )
    return before


def _finished(manifest: dict[str, Any], runs_dir: Path) -> dict[str, tuple[Path, Result]]:
    found = {}
    for cell in manifest["cells"]:
        try:
            result = find_result(cell, [runs_dir])
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if result:
            found[cell["run"]] = result
    return found


def _complaints(
    name: str, finished: dict[str, tuple[Path, Result]], allow_dirty: bool, allow_partial: bool
) -> str | None:
    """Why the results are not taken, and what to do about it; None if they are."""
    found = list(finished.values())
    untraceable = [f"{path}: {why}" for path, result in found if (why := _untraceable(result))]
    partial = [f"{path}: {why}" for path, result in found if (why := _partial(result))]
    if untraceable and not allow_dirty:
        advice = "commit the code and run these with force=true, or promote with allow_dirty=true"
        return "\n  ".join([f"sweep {name!r} cannot be traced to a commit:", *untraceable, advice])
    if partial and not allow_partial:
        advice = "run these to their end, or promote with allow_partial=true: the table says so"
        return "\n  ".join([f"sweep {name!r} has runs that are no full ones:", *partial, advice])
    return None


def _untraceable(result: Result) -> str | None:
    if not lookup(result, "git", "commit"):
        return "no git commit"
    if lookup(result, "git", "dirty") is not False:
        return "measured with uncommitted changes"
    return None


def _partial(result: Result) -> str | None:
    if not result.get("ended"):
        return None
    planned = result.get("planned_epochs")
    epochs = f"{result.get('epochs')}{f' of {planned}' if planned is not None else ''} epochs"
    return f"ended by {result['ended']} after {epochs}"
