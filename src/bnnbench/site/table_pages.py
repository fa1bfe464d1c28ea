"""A page for each comparison table, and the list of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bnnbench.report.efficiency import Bench, tables
from bnnbench.report.markup import Table, right_aligned
from bnnbench.report.overall_page import NAME, committed, scores_of, table_of
from bnnbench.report.render import FIGURES, figure_stem
from bnnbench.report.robustness import readable
from bnnbench.report.robustness import table as corrupted
from bnnbench.report.tables import comparison, rows_of
from bnnbench.site.boards import Addresses, comparison_grid
from bnnbench.site.grid import Column, Grid, Line, cell_of
from bnnbench.site.pages import Site
from bnnbench.site.reading import Collection, Sweep

_WORDS = {"curves": "Accuracy and loss by epoch"}


class Sheet(NamedTuple):
    """A table that is of no sweep: its name, itself, and its picture with a caption."""

    name: str
    table: Table
    picture: Path
    caption: str


def write_tables(
    site: Site,
    found: Collection,
    bench: Bench | None,
    figures: Path,
    sheets: Sequence[Sheet],
    to: Addresses,
) -> None:
    """Write them all, and a list with their titles and how many of their runs are finished."""
    listed = []
    for sweep in found.sweeps:
        try:
            listed.append(_write(site, sweep, found, bench, figures, to))
        except Exception as error:  # whatever is wrong with one table, the others have their pages
            found.problems.append(f"table {sweep.name} was left out: {error!r}")
            to.tables.pop(sweep.name, None)
    listed += [_sheet(site, sheet, to) for sheet in sheets]
    site.page("tables.html", "tables.html", tables=listed, active="tables")


def sheets_of(results: Path, bench: Bench | None) -> list[Sheet]:
    """The scores over all tracks, the robustness files and the bench file of a results folder."""
    found = []
    if scored := scores_of(committed(results), bench):
        name, table = f"{NAME}_{scored[0]}", table_of(scored[1], scored[0])
        found.append(Sheet(name, table, results / "figures" / f"{name}.png", "Score by track"))
    folder = results / "robustness"
    for name, content in readable(sorted(folder.glob("*.json"))).items():
        picture = folder / f"{name}.png"
        found.append(Sheet(name, corrupted(content, name), picture, "Accuracy by corruption"))
    for name, table in tables(bench.speeds, bench.name) if bench else []:
        picture = results / "figures" / f"{name}.png"
        found.append(Sheet(name, table, picture, "Accuracy against cost"))
    return found


def _sheet(site: Site, sheet: Sheet, to: Addresses) -> tuple[str, str, str, str]:
    table = sheet.table
    lines = [_plain(row, right_aligned([table.header, *table.rows])) for row in table.rows]
    heads = enumerate(table.header)
    columns = [Column(title, narrow=_is_narrow(title, place)) for place, title in heads]
    shown = []
    if sheet.picture.is_file():
        address = f"results/{sheet.picture.parent.name}/{sheet.picture.name}"
        shown = [(site.copy(sheet.picture, address), sheet.caption)]
    _page(site, to.tables[sheet.name], table, Grid("table", columns, lines), shown, None)
    return to.tables[sheet.name], table.title, f"{len(table.rows)} rows", ""


def _is_narrow(title: str, place: int) -> bool:
    """Whether a phone shows a column of a sheet: what a row is, and what it is about."""
    return place < 2 or title in ("layer", "mCE / twin") or title.split(",")[0] == "x float"


def _write(
    site: Site,
    sweep: Sweep,
    found: Collection,
    bench: Bench | None,
    figures: Path,
    to: Addresses,
) -> tuple[str, str, str, str]:
    results, failures, damaged = sweep.found
    where = sweep.manifest, results, failures
    table = comparison(*where, sweep.quoted, found.hashes, damaged, bench)
    if sweep.note:
        table.notes.append(sweep.note)
    rows = rows_of(*where, sweep.quoted, damaged)
    grid = comparison_grid(table, rows, to)
    names = {name: figure_stem(Path(sweep.name), name).name for name in FIGURES}
    shown = [] if sweep.local else _pictures(site, figures, names)
    address = to.tables[sweep.name]
    _page(site, address, table, grid, shown, sweep)
    state = f"{len(results)} of {len(sweep.manifest['cells'])} runs finished"
    state += f", {len(failures)} failed" if failures else ""
    state += f", {len(damaged)} damaged" if damaged else ""
    return address, table.title, state, "local" if sweep.local else ""


def _page(
    site: Site,
    address: str,
    table: Table,
    grid: Grid,
    shown: list[tuple[str, str]],
    sweep: Sweep | None,
) -> None:
    empty = sweep is not None and not sweep.found.results
    command = sweep.manifest["command"] if sweep else ""
    site.page(
        address,
        "table.html",
        title=table.title,
        grid=grid,
        notes=table.notes,
        pictures=shown,
        command=command,
        empty=empty,
        local=sweep is not None and sweep.local,
        active="tables",
    )


def _pictures(site: Site, figures: Path, names: dict[str, str]) -> list[tuple[str, str]]:
    """Address and caption of the figures that there are."""
    found = []
    for kind, name in names.items():
        if (file := figures / f"{name}.png").is_file():
            address = site.copy(file, f"results/figures/{file.name}")
            found.append((address, _WORDS.get(kind, kind.capitalize())))
    return found


def _plain(row: list[str], numbers: list[bool]) -> Line:
    cells = [cell_of(text, number) for text, number in zip(row, numbers, strict=True)]
    return Line(cells, ("", ""), ("", ""))
