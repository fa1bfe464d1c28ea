"""The whole site: everything is read once, then page after page is written."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from bnnbench.report.efficiency import bench_of
from bnnbench.report.published import load_published
from bnnbench.site.boards import Addresses, leaderboard
from bnnbench.site.entries import Entry, measured, published, ranked
from bnnbench.site.library import Library
from bnnbench.site.method_pages import write_methods
from bnnbench.site.pages import MARKER, Names, Site
from bnnbench.site.reading import Collection, Published, read
from bnnbench.site.run_pages import pictures_of, write_runs
from bnnbench.site.table_pages import Sheet, sheets_of, write_tables

_MODULES = {"jinja2": "jinja2", "markdown_it": "markdown-it-py", "pygments": "pygments"}


def build(root: Path, results: Path, sweeps_dir: Path, runs_dir: Path, out: Path) -> list[str]:
    """Write the site of the results and the docs to a folder, in place of an older one.

    Args:
        root: the checkout, whose docs have pages; without docs the site is that of results alone.
        results: the committed results, with their published numbers and figures.
        sweeps_dir, runs_dir: the logs, whose sweeps have pages marked as local.
        out: the folder, new or one that this function wrote.

    Returns:
        One line each about what could not be shown.

    Raises:
        ValueError: a package is missing, or the folder holds something else.
    """
    check_packages()
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ValueError(f"{out} holds what is no site of bnnbench: move it away first")
    above = next(each for each in out.absolute().parents if each.exists())
    if not above.is_dir():
        raise ValueError(f"{above} is a file where the folder of the site would be: move it away")
    new = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        problems = _write(root, results, sweeps_dir, runs_dir, Site(new))
        (new / MARKER).write_text("written by bnnbench: replaced when it is built again\n")
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return problems


def check_packages() -> None:
    """Refuse to begin where a package is missing. Raises ValueError, which names the extra."""
    missing = [package for module, package in _MODULES.items() if find_spec(module) is None]
    if missing:
        raise ValueError(
            f"site=true needs {' and '.join(missing)}, which this installation has not: "
            "pip install 'bnnbench[site]'"
        )


def _write(root: Path, results: Path, sweeps_dir: Path, runs_dir: Path, site: Site) -> list[str]:
    found = read(results, sweeps_dir, runs_dir)
    bench = bench_of(results)
    quoted = _quoted(results / "published", found)
    entries = ranked([*measured(found, bench), *published(quoted)])
    to = Addresses()
    library = Library(root, site, to)
    methods = library.methods().keys() | {entry.method for entry in entries}
    sheets = sheets_of(results, bench)
    _name_pages(to, found, sorted(methods), sheets)
    site.has_docs = bool(library.pages)
    for stem in quoted:
        if address := library.address(f"results/published/{stem}.yaml"):
            to.published[stem] = address
    pictures = pictures_of(results / "figures", found, site)
    write_tables(site, found, bench, results / "figures", sheets, to)
    write_runs(site, found, entries, pictures, to)
    write_methods(site, entries, library, to)
    library.write()
    _write_front(site, found, entries, library, to)
    site.assets()
    return site.problems


def _quoted(folder: Path, found: Collection) -> dict[str, Published]:
    """All published numbers by the stem of their file; a wrong file costs itself alone."""
    quoted = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            quoted[file.stem] = load_published(file)
        except ValueError as error:
            found.problems.append("; ".join(str(error).splitlines()))
    return quoted


def _name_pages(to: Addresses, found: Collection, methods: list[str], sheets: list[Sheet]) -> None:
    """Give every run, table and method a page; names that cannot be files are given others."""
    runs, files, pages = Names(), Names(), Names("index")
    for key in found.runs:
        to.runs[key] = f"runs/{runs.take(key)}.html"
    for sweep in found.sweeps:
        name = sweep.name if sweep.name not in to.tables else f"{sweep.name} (logs)"
        sweep.name = name
        to.tables[name] = f"tables/{files.take(name)}.html"
    for sheet in sheets:
        to.tables[sheet.name] = f"tables/{files.take(sheet.name)}.html"
    for method in methods:
        to.methods[method] = f"methods/{pages.take(method)}.html"


def _write_front(
    site: Site, found: Collection, entries: list[Entry], library: Library, to: Addresses
) -> None:
    """The landing page, and the page of what could not be shown."""
    site.problems[:0] = found.problems
    counts = {
        "runs": len(found.runs),
        "methods": len({e.method for e in entries if e.kind == "measured"}),
        "tables": len(to.tables),
        "published": sum(entry.kind == "published" for entry in entries),
    }
    site.page("problems.html", "problems.html", problems=site.problems, active="")
    site.page(
        "index.html",
        "index.html",
        grid=leaderboard("board", entries, to),
        first=first_set(entries),
        counts=counts,
        problems=len(site.problems),
        docs=library.pages,
        active="board",
    )


def first_set(entries: list[Entry]) -> str:
    """The data set that the landing page shows first: one that papers print numbers of, too."""
    printed = {entry.dataset for entry in entries if entry.kind == "published"}
    sizes: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "measured":
            sizes[entry.dataset] = sizes.get(entry.dataset, 0) + 1
    return max(sizes, key=lambda name: (name in printed, sizes[name], name), default="")
