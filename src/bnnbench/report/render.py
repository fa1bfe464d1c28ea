"""Read a sweep's manifest and results from disk, and write its table and its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bnnbench.records.names import check_name
from bnnbench.report.conclusions import conclude
from bnnbench.report.conclusions_page import ENDING, summary, write
from bnnbench.report.efficiency import Bench
from bnnbench.report.figures import curves
from bnnbench.report.orders import Other
from bnnbench.report.published import load_published
from bnnbench.report.reading import Found, code_hashes, collect, read_json
from bnnbench.report.rows import Result, group_cells
from bnnbench.report.runs import beside_name, runs_csv, runs_name
from bnnbench.report.tables import Table, comparison, title_of
from bnnbench.report.weights import binarized, kernels, layers

FIGURES = {"curves": curves, "kernels": kernels, "layers": layers, "binarized": binarized}


def render(
    manifest_path: Path,
    run_folders: list[Path],
    out_dir: Path,
    published_dir: Path,
    stem: str = "table",
    figures: Path | None = None,
    formats: Sequence[str] = ("png", "svg"),
    names: Sequence[str] | None = None,
    bench: Bench | None = None,
    beside: Sequence[Path] = (),
) -> Table:
    """Write `<stem>.md`, `.csv` and `.tex` of one sweep to out_dir, its runs and its figures.

    The runs go to `runs.csv`, or to `<stem>_runs.csv` for another stem than "table", and what may
    be concluded to `conclusions.md` and `.json` in the same way.

    Args:
        manifest_path: the sweep's `sweep.json`.
        run_folders: where results are looked up, as `<run>/result.json` or `<run>.json`; the
            first folder that holds a run's result counts.
        out_dir: where the table goes.
        published_dir: folder of the published numbers that a manifest's table may name.
        figures: the curves go to `<figures>.<format>`, the others to `<figures>_<name>.<format>`;
            to `<name>.<format>` in out_dir if None.
        formats: those of the figures, png or svg.
        names: which figures are drawn, of `FIGURES`; by default those that the sweep asks for.
        bench: the bench file that times are looked up in; None for a table without.
        beside: manifests of other sweeps; those of the same table, trained for other lengths, are
            compared with this one.
    """
    manifest = read_json(manifest_path)
    found = collect(manifest, run_folders)
    published = (manifest.get("table") or {}).get("published")
    if published is not None:
        check_name(f"{manifest_path}, published", published)
    emptied = published is not None and not published_dir.is_dir()
    quoted = (
        load_published(published_dir / f"{published}.yaml") if published and not emptied else None
    )
    hashes = code_hashes(found.results)
    table = comparison(
        manifest, found.results, found.failures, quoted, hashes, found.damaged, bench
    )
    if emptied:  # a mistyped name is an error, a results folder somebody emptied is not
        table.notes.append(f"no published numbers: {published_dir.name}/{published}.yaml is gone")
    others = [path for path in beside if path != manifest_path]
    table.notes += _concluded(
        manifest, found, _others(manifest, others, run_folders), published_dir, out_dir, stem
    )
    write_table(out_dir / stem, table)
    runs = runs_csv(manifest, found, quoted, hashes)
    (out_dir / runs_name(stem)).write_text(runs, encoding="utf-8")
    asked = list(names or manifest.get("figures") or ["curves"])
    draw(manifest, found.results, _figure_stems(figures, out_dir), formats, asked)
    return table


def _concluded(
    manifest: dict[str, Any],
    found: Found,
    others: list[Other],
    published_dir: Path,
    out_dir: Path,
    stem: str,
) -> list[str]:
    """Write what may be concluded of a sweep, and return the note that points to it.

    A plain sweep of one seed has nothing to say; what an earlier call wrote goes then.
    """
    target = out_dir / beside_name(stem, ENDING)
    rows = group_cells(manifest, *found)
    asked = manifest.get("table") or any(len(row.results) > 1 for row in rows)
    what = None
    if asked:
        files = sorted(published_dir.glob("*.yaml"))
        sources = [source for file in files if (source := _quoted(file))]
        what = conclude(rows, manifest["swept"], sources, others)
    if what is None:
        for suffix in ("md", "json"):
            target.with_name(f"{target.name}.{suffix}").unlink(missing_ok=True)
        return []
    out_dir.mkdir(parents=True, exist_ok=True)
    write(what, title_of(manifest), manifest, rows, target)
    return [summary(what, f"{target.name}.md")]


def _others(manifest: dict[str, Any], paths: list[Path], run_folders: list[Path]) -> list[Other]:
    """The other sweeps of a manifest's table; a damaged one is named when it is rendered itself."""
    name, found = (manifest.get("table") or {}).get("name"), []
    for path in paths if name else ():
        try:
            table = json.loads(path.read_text(encoding="utf-8")).get("table")
            if (table or {}).get("name") != name:
                continue
            other = read_json(path)
        except (OSError, ValueError, AttributeError):
            continue
        rows = group_cells(other, *collect(other, run_folders))
        found.append(Other(other["name"], other["swept"], rows))
    return found


def _quoted(path: Path) -> dict[str, Any] | None:
    """Published numbers, read once; a file that is not valid is named and left out."""
    return _read_published(path, path.stat().st_mtime_ns)


@cache
def _read_published(path: Path, _changed: int) -> dict[str, Any] | None:
    try:
        return load_published(path)
    except ValueError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def write_table(stem: Path, table: Table) -> None:
    """Write `<stem>.md`, `.csv` and `.tex`."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {"md": table.markdown(), "csv": table.csv(), "tex": table.latex()}
    for suffix, text in texts.items():
        stem.with_name(f"{stem.name}.{suffix}").write_text(text, encoding="utf-8")


def draw(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stems: dict[str, Path],
    formats: Sequence[str],
    asked: Sequence[str],
) -> None:
    """Draw the figures asked for that the results have data for; drop all others.

    Raises ValueError for a figure that does not exist.
    """
    if unknown := sorted(set(asked) - FIGURES.keys()):
        raise ValueError(f"figures: there is no {unknown}; choose of {sorted(FIGURES)}")
    for name, stem in stems.items():
        if name not in asked or not FIGURES[name](manifest, results, stem, formats):
            for suffix in formats:
                stem.with_name(f"{stem.name}.{suffix}").unlink(missing_ok=True)


def _figure_stems(figures: Path | None, out_dir: Path) -> dict[str, Path]:
    if figures is None:
        return {name: out_dir / name for name in FIGURES}
    others = {name: figures.with_name(f"{figures.name}_{name}") for name in FIGURES}
    return others | {"curves": figures}
