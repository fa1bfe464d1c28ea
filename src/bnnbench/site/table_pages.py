"""A page for each comparison table, and the list of them."""

from __future__ import annotations

from pathlib import Path

from bnnbench.report.efficiency import Bench, tables
from bnnbench.report.markup import Table, right_aligned
from bnnbench.report.render import FIGURES, figure_stem
from bnnbench.report.tables import comparison, rows_of
from bnnbench.site.boards import Addresses, comparison_grid
from bnnbench.site.grid import Column, Grid, Line, cell_of
from bnnbench.site.pages import Site
from bnnbench.site.reading import Collection, Sweep

_WORDS = {"curves": "Accuracy and loss by epoch"}


def write_tables(
    site: Site, found: Collection, bench: Bench | None, figures: Path, to: Addresses
) -> None:
    """Write them all, and a list with their titles and how many of their runs are finished."""
    listed = []
    for sweep in found.sweeps:
        try:
            listed.append(_write(site, sweep, found, bench, figures, to))
        except Exception as error:  # whatever is wrong with one table, the others have their pages
            found.problems.append(f"table {sweep.name} was left out: {error!r}")
            to.tables.pop(sweep.name, None)
    for name, table in bench_tables(bench):
        shown = _pictures(site, figures, {"": name}) if name == "efficiency" else []
        lines = [_plain(row, right_aligned([table.header, *table.rows])) for row in table.rows]
        columns = [
            Column(title, narrow=_is_narrow(title, n)) for n, title in enumerate(table.header)
        ]
        grid = Grid("table", columns, lines)
        _page(site, to.tables[name], table, grid, shown, None)
        listed.append((to.tables[name], table.title, f"{len(table.rows)} rows", ""))
    site.page("tables.html", "tables.html", tables=listed, active="tables")


def bench_tables(bench: Bench | None) -> list[tuple[str, Table]]:
    """The tables of a bench file by the names of their pages."""
    return [] if bench is None else tables(bench.speeds, bench.name)


def _is_narrow(title: str, place: int) -> bool:
    """Whether a phone shows a column of a bench table: what a row is, and its speed over float."""
    return place < 2 or title == "layer" or title.split(",")[0] == "x float"


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
            found.append((address, _WORDS.get(kind, kind.capitalize() or "Accuracy against cost")))
    return found


def _plain(row: list[str], numbers: list[bool]) -> Line:
    cells = [cell_of(text, number) for text, number in zip(row, numbers, strict=True)]
    return Line(cells, ("", ""), ("", ""))
