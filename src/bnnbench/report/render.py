"""Read a sweep's manifest and results from disk, and write its table and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnnbench.records.names import check_name
from bnnbench.report.efficiency import Bench
from bnnbench.report.figures import curves
from bnnbench.report.published import load_published
from bnnbench.report.reading import code_hashes, collect, read_json
from bnnbench.report.rows import Result
from bnnbench.report.runs import runs_csv, runs_name
from bnnbench.report.tables import Table, comparison
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
) -> Table:
    """Write `<stem>.md`, `.csv` and `.tex` of one sweep to out_dir, its runs and its figures.

    The runs go to `runs.csv`, or to `<stem>_runs.csv` for another stem than "table".

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
    """
    manifest = read_json(manifest_path)
    found = collect(manifest, run_folders)
    quoted, note = quoted_of(manifest_path, manifest, published_dir)
    hashes = code_hashes(found.results)
    table = comparison(
        manifest, found.results, found.failures, quoted, hashes, found.damaged, bench
    )
    if note:
        table.notes.append(note)
    write_table(out_dir / stem, table)
    runs = runs_csv(manifest, found, quoted, hashes)
    (out_dir / runs_name(stem)).write_text(runs, encoding="utf-8")
    asked = list(names or manifest.get("figures") or ["curves"])
    draw(manifest, found.results, _figure_stems(figures, out_dir), formats, asked)
    return table


def quoted_of(
    manifest_path: Path, manifest: dict[str, Any], published_dir: Path
) -> tuple[dict[str, Any] | None, str | None]:
    """The published numbers that a manifest's table names, and a note where they are gone.

    A mistyped name is an error, a results folder that somebody emptied is not.
    """
    published = (manifest.get("table") or {}).get("published")
    if published is None:
        return None, None
    check_name(f"{manifest_path}, published", published)
    if not published_dir.is_dir():
        return None, f"no published numbers: {published_dir.name}/{published}.yaml is gone"
    return load_published(published_dir / f"{published}.yaml"), None


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
