"""Read a sweep's manifest and results from disk, and write its table and its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.records.names import check_name
from bnnbench.report.conclusions import conclude
from bnnbench.report.conclusions_page import ENDING, summary, write
from bnnbench.report.diagnostics import diagnostics
from bnnbench.report.dots import classes, scores
from bnnbench.report.drawn import Drawn
from bnnbench.report.efficiency import Bench
from bnnbench.report.figures import curves
from bnnbench.report.markup import MISSING
from bnnbench.report.orders import Other
from bnnbench.report.pareto import pareto_of_sweep
from bnnbench.report.published import load_published
from bnnbench.report.ranks import ranks
from bnnbench.report.reading import Found, code_hashes, collect, read_json
from bnnbench.report.reliability import reliability
from bnnbench.report.rows import Result, group_cells
from bnnbench.report.runs import beside_name, runs_csv, runs_name
from bnnbench.report.sensitivity import sensitivity, spread_table
from bnnbench.report.tables import Table, comparison, title_of
from bnnbench.report.weights import binarized, kernels, layers

FIGURES: dict[str, Callable[..., bool]] = {
    "curves": curves,
    "scores": scores,
    "ranks": ranks,
    "classes": classes,
    "pareto": pareto_of_sweep,
    "kernels": kernels,
    "layers": layers,
    "binarized": binarized,
    "diagnostics": diagnostics,
    "sensitivity": sensitivity,
    "reliability": reliability,
}


HEAVY = ("statistics", "history", "source_proofs")  # of results: two thirds, for figures and notes


class Compared(NamedTuple):
    """A sweep's table, the published numbers in it, and the hash of the code behind each result."""

    table: Table
    quoted: dict[str, Any] | None
    hashes: dict[str, str]


Drawing = Callable[[dict[str, Any], dict[str, Result], Path, Sequence[str]], bool]


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
    read: dict[Path, Other] | None = None,
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
        formats: those of the figures: png, svg or pdf.
        names: which figures are drawn, of `FIGURES`; by default those that the sweep asks for, and
            scores, ranks and classes where there is more than one seed, a published number, or a
            detector. Those that somebody has asked for before are drawn again as well; where this
            is empty, all are dropped.
        bench: the bench file that times are looked up in; None for a table without.
        beside: manifests of other sweeps; those of the same table, trained for other lengths, are
            compared with this one.
        read: those of them that an earlier call has read, for all calls on the same folders: else
            each of many sweeps of a table would read all others again.
    """
    manifest = read_json(manifest_path)
    found = collect(manifest, run_folders)
    table, quoted, hashes = table_of(manifest, manifest_path, found, published_dir, bench)
    others = [path for path in beside if path != manifest_path]
    compared = _others(manifest, others, run_folders, {} if read is None else read)
    table.notes += _concluded(manifest, found, compared, published_dir, out_dir, stem)
    usual = _usual(manifest, quoted)
    stems, drawn = _figure_stems(figures, out_dir), None
    asked = list(usual if names is None else names)
    asked += _standing(stems, formats) if asked else []
    if "sensitivity" in [*asked, *usual]:
        table.notes += _spread(manifest, found, out_dir, stem)
    write_table(out_dir / stem, table)
    runs = runs_csv(manifest, found, quoted, hashes)
    (out_dir / runs_name(stem)).write_text(runs, encoding="utf-8")
    drawings = drawings_of(quoted, bench)
    if figures is None:
        drawn = Drawn(out_dir, [manifest, found.results, quoted, bench])
    draw(manifest, found.results, stems, formats, asked, drawings, drawn)
    return table


def table_of(
    manifest: dict[str, Any],
    manifest_path: Path,
    found: Found,
    published_dir: Path,
    bench: Bench | None,
) -> Compared:
    """The table of a sweep that has been read. Raises as `quoted_by` does."""
    quoted, gone = quoted_by(manifest, manifest_path, published_dir)
    hashes = code_hashes(found.results)
    parts = found.results, found.failures, quoted, hashes, found.damaged, bench
    table = comparison(manifest, *parts)
    if gone:
        table.notes.append(gone)
    return Compared(table, quoted, hashes)


def quoted_by(
    manifest: dict[str, Any], manifest_path: Path, published_dir: Path
) -> tuple[dict[str, Any] | None, str | None]:
    """The published numbers of a sweep's table, and a note where somebody emptied their folder.

    Raises FileNotFoundError for a name that no file of the folder has.
    """
    published = (manifest.get("table") or {}).get("published")
    if published is None:
        return None, None
    check_name(f"{manifest_path}, published", published)
    if not published_dir.is_dir():  # a mistyped name is an error, an emptied folder is not
        return None, f"no published numbers: {published_dir.name}/{published}.yaml is gone"
    return load_published(published_dir / f"{published}.yaml"), None


def drawings_of(quoted: dict[str, Any] | None, bench: Bench | None) -> dict[str, Drawing]:
    """The figures by name, with what some of them draw beside the results."""
    beside = {"published": quoted}
    more = {"curves": beside, "scores": beside, "pareto": {"bench": bench}}
    return {name: partial(figure, **more.get(name, {})) for name, figure in FIGURES.items()}


def _usual(manifest: dict[str, Any], quoted: dict[str, Any] | None) -> list[str]:
    names = list(manifest.get("figures") or ["curves"])
    several = len({cell["overrides"].get("seed") for cell in manifest["cells"]}) > 1
    more = [*(["scores"] if several or quoted else []), *(["ranks"] if several else []), "classes"]
    return [*names, *(name for name in more if name not in names)]


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


def _spread(manifest: dict[str, Any], found: Found, out_dir: Path, stem: str) -> list[str]:
    """Write each method's spread over settings beside the table, and return what to say of it."""
    spread = spread_table(manifest, group_cells(manifest, *found), title_of(manifest))
    if spread is None:
        return []
    target = out_dir / beside_name(stem, "sensitivity")
    write_table(target, spread)
    words = [
        f"{method} {low} to {high}" for method, _, high, _, low, *_ in spread.rows if low != MISSING
    ]
    return [f"over the settings, in percent: {', '.join(words)}; {target.name}.md has which"]


def _others(
    manifest: dict[str, Any], paths: list[Path], run_folders: list[Path], read: dict[Path, Other]
) -> list[Other]:
    """The other sweeps of a manifest's table; a damaged one is named when it is rendered itself."""
    name, found = (manifest.get("table") or {}).get("name"), []
    for path in paths if name else ():
        try:
            if _table_name(path, path.stat().st_mtime_ns) != name:
                continue
            if path not in read:
                read[path] = _other(path, run_folders)
        except (OSError, ValueError, AttributeError):
            continue
        found.append(read[path])
    return found


def _other(path: Path, run_folders: list[Path]) -> Other:
    """A sweep as another one's order: without what takes most of the memory of results."""
    manifest = read_json(path)
    results, failures, damaged = collect(manifest, run_folders)
    light = {
        run: {key: value for key, value in result.items() if key not in HEAVY}
        for run, result in results.items()
    }
    rows = group_cells(manifest, light, failures, damaged)
    return Other(manifest["name"], manifest["swept"], rows)


@cache
def _table_name(path: Path, _changed: int) -> str | None:
    """The table that a manifest is of: every sweep that is rendered asks each of the others."""
    return (json.loads(path.read_text(encoding="utf-8")).get("table") or {}).get("name")


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
    drawings: Mapping[str, Drawing],
    drawn: Drawn | None = None,
) -> None:
    """Draw the figures asked for that the results have data for; drop all others.

    With drawn, those that would come out as they are already are left alone. Raises ValueError for
    a figure that does not exist.
    """
    check_figures(asked)
    made: dict[str, bool] = {}
    for name, stem in stems.items():
        if name in asked:
            there = drawn and drawn.outcome(name, stem, formats)
            if there is None:
                there = drawings[name](manifest, results, stem, formats)
            made[name] = there
        if not made.get(name):
            for suffix in formats:
                stem.with_name(f"{stem.name}.{suffix}").unlink(missing_ok=True)
    if drawn is not None:
        drawn.write(made)


def check_figures(asked: Sequence[str], key: str = "figures") -> None:
    """Refuse names that no figure has, with a ValueError that lists those there are."""
    if unknown := sorted(set(asked) - FIGURES.keys()):
        raise ValueError(f"{key}: there is no {', '.join(unknown)}; choose of {', '.join(FIGURES)}")


def figure_stem(figures: Path, name: str) -> Path:
    """Where a figure of a promoted sweep goes: the curves to its own name."""
    return figures if name == "curves" else figures.with_name(f"{figures.name}_{name}")


def _standing(stems: Mapping[str, Path], formats: Sequence[str]) -> list[str]:
    """The figures that there are: asked for once, they go with the results."""
    return [
        name
        for name, stem in stems.items()
        if any(stem.with_name(f"{stem.name}.{suffix}").exists() for suffix in formats)
    ]


def _figure_stems(figures: Path | None, out_dir: Path) -> dict[str, Path]:
    if figures is None:
        return {name: out_dir / name for name in FIGURES}
    return {name: figure_stem(figures, name) for name in FIGURES}
