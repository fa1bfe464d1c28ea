"""Read a sweep's manifest and results from disk, and write its table and its figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnnbench.records.provenance import source_hash
from bnnbench.report.figures import curves
from bnnbench.report.published import load_published
from bnnbench.report.rows import Result, lookup
from bnnbench.report.tables import Table, comparison
from bnnbench.report.weights import binarized, kernels, layers

SCHEMA = 1
FIGURES = {"curves": curves, "kernels": kernels, "layers": layers, "binarized": binarized}


def render(
    manifest_path: Path,
    run_folders: list[Path],
    out_dir: Path,
    published_dir: Path,
    stem: str = "table",
    figures: Path | None = None,
    formats: Sequence[str] = ("png", "svg"),
) -> Table:
    """Write `<stem>.md`, `.csv` and `.tex` of one sweep to out_dir, and its figures.

    Args:
        manifest_path: the sweep's `sweep.json`.
        run_folders: where results are looked up, as `<run>/result.json` or `<run>.json`; the
            first folder that holds a run's result counts.
        out_dir: where the table goes.
        published_dir: folder of the published numbers that a manifest's table may name.
        figures: the curves go to `<figures>.<format>`, the others to `<figures>_<name>.<format>`;
            to `<name>.<format>` in out_dir if None.
        formats: of the figures, png or svg.
    """
    manifest = read_json(manifest_path)
    results, failures = collect(manifest, run_folders)
    published = (manifest.get("table") or {}).get("published")
    emptied = published is not None and not published_dir.is_dir()
    quoted = (
        load_published(published_dir / f"{published}.yaml") if published and not emptied else None
    )
    table = comparison(manifest, results, failures, quoted, code_hashes(results))
    if emptied:  # a mistyped name is an error, a results folder somebody emptied is not
        table.notes.append(f"no published numbers: {published_dir.name}/{published}.yaml is gone")
    out_dir.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
        (out_dir / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    draw(manifest, results, _figure_stems(figures, out_dir), formats)
    return table


def draw(
    manifest: dict[str, Any],
    results: dict[str, Result],
    stems: dict[str, Path],
    formats: Sequence[str],
) -> None:
    """Draw every figure that the results have data for; drop those they no longer have."""
    for name, stem in stems.items():
        if not FIGURES[name](manifest, results, stem, formats):
            for suffix in formats:
                stem.with_name(f"{stem.name}.{suffix}").unlink(missing_ok=True)


def _figure_stems(figures: Path | None, out_dir: Path) -> dict[str, Path]:
    if figures is None:
        return {name: out_dir / name for name in FIGURES}
    others = {name: figures.with_name(f"{figures.name}_{name}") for name in FIGURES}
    return others | {"curves": figures}


def collect(
    manifest: dict[str, Any], run_folders: list[Path]
) -> tuple[dict[str, Result], dict[str, str]]:
    """Results and error texts of a sweep's cells, each by fingerprint."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for cell in manifest["cells"]:
        path = find_result(cell, run_folders)
        if path:
            results[cell["fingerprint"]] = read_json(path)
            continue
        errors = [folder / cell["run"] / "error.txt" for folder in run_folders]
        for error in filter(Path.is_file, errors):
            failures[cell["fingerprint"]] = error.read_text(encoding="utf-8", errors="replace")
    return results, failures


def code_hashes(results: dict[str, Result]) -> dict[str, str]:
    """Hash of the code of every quantizer among the results, as that code is now."""
    hashes = {}
    for result in results.values():
        name, config = result["choices"]["quantizer"], lookup(result, "config", "quantizer")
        if config is None or name in hashes:
            continue
        try:
            hashes[name] = source_hash(config)
        except FileNotFoundError:
            hashes[name] = "no such file any more"  # older than any code there is
    return hashes


def find_result(cell: dict[str, Any], run_folders: list[Path]) -> Path | None:
    """The file with a cell's result, or None if no folder has one of this very configuration."""
    for folder in run_folders:
        for path in (folder / cell["run"] / "result.json", folder / f"{cell['run']}.json"):
            if path.is_file() and read_json(path).get("fingerprint") == cell["fingerprint"]:
                return path
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A manifest or result. Raises ValueError, saying what to do, if it cannot be used."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and run its command again"
        ) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema!r}, this version reads schema {SCHEMA}")
    return content
