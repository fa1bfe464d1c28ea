"""A page for each run: its config, curves, provenance, command, and what it compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bnnbench.report.figures import METRICS
from bnnbench.report.rows import Result, lookup, percent_of, plain
from bnnbench.report.tables import scientific, significant
from bnnbench.site.boards import Addresses
from bnnbench.site.entries import Entry, marks_of
from bnnbench.site.facts import budget_of, structure_of
from bnnbench.site.grid import Cell, Column, Grid, Line
from bnnbench.site.markdown import highlighted
from bnnbench.site.pages import Site
from bnnbench.site.reading import Collection

_MOST_ALIKE = 20  # comparable settings that a page names
_MOST_EPOCHS = 400  # points of a curve; longer histories are thinned
_COLUMNS = (
    Column("run", narrow=True),
    Column("score %", number=True, narrow=True),
    Column("method", facet="method"),
    Column("backbone", facet="backbone"),
    Column("data set", facet="dataset"),
    Column("recipe", facet="recipe"),
    Column("seed", number=True),
    Column("budget", facet="budget"),
    Column("commit", shown=False),
    Column("device", shown=False),
)


def write_runs(
    site: Site,
    found: Collection,
    entries: list[Entry],
    pictures: dict[str, list[str]],
    to: Addresses,
) -> None:
    """Write them all, and their list."""
    of_run = {key: entry for entry in entries for key, _ in entry.runs}
    sets: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.kind == "measured":
            sets.setdefault(entry.comparable, []).append(entry)
    places = {id(entry): n for members in sets.values() for n, entry in enumerate(members)}
    tables = _tables(found, to)
    lines = []
    for key, result in found.runs.items():
        entry = of_run[key]
        site.page(
            to.runs[key],
            "run.html",
            key=key,
            result=result,
            entry=entry,
            facts=facts_of(result),
            provenance=provenance_of(result),
            metrics=_metrics(result),
            config=_config(result),
            history=history_of(result),
            marks=marks_of([(key, result)], found),
            alike=_alike(places[id(entry)], sets[entry.comparable], to),
            seeds=[(seed, to.runs[name]) for name, seed in entry.runs if name != key],
            tables=tables.get(key, []),
            pictures=pictures.get(key, []),
            method=to.methods.get(entry.method, ""),
            active="runs",
        )
        lines.append(_line(key, result, found, to))
    site.page("runs.html", "runs.html", grid=Grid("runs", list(_COLUMNS), lines), active="runs")


def pictures_of(figures: Path, found: Collection, site: Site) -> dict[str, list[str]]:
    """Addresses of the pictures of each run, which are called `<run>_<what>.png`."""
    pictures: dict[str, list[str]] = {}
    for file in sorted(figures.glob("*.png")):
        run = file.stem
        while run and run not in found.runs:
            run = run.rpartition("_")[0]
        if run:
            address = site.copy(file, f"results/figures/{file.name}")
            pictures.setdefault(run, []).append(address)
    return pictures


def facts_of(result: Result) -> list[tuple[str, str]]:
    """What was trained and what it costs, in words."""
    choices = [(group, str(name)) for group, name in result["choices"].items()]
    costs = {
        "OPs": (("operations", "ops"), scientific),
        "parameters": (("operations", "params"), lambda v: f"{v / 1e6:.3f} M"),
        "packed size": (("operations", "packed_bytes"), lambda v: f"{significant(v / 1e6)} MB"),
        "exported file": (("export", "bytes"), lambda v: f"{significant(v / 1e6)} MB"),
        "training": (("time", "train_s"), lambda v: f"{significant(v)} s"),
        "processor": (("time", "cpu_s"), lambda v: f"{significant(v)} s"),
        "images a second": (("time", "images_per_s"), significant),
        "peak memory": (("time", "train_memory_mb"), lambda v: f"{significant(v)} MB"),
    }
    known = [(name, lookup(result, *path), form) for name, (path, form) in costs.items()]
    told = [(name, form(value)) for name, value, form in known if value is not None]
    facts = [*choices, ("seed", str(result["seed"])), ("budget", budget_of(result))]
    return [*facts, ("structure", structure_of(result) or "plain"), *told]


def provenance_of(result: Result) -> list[tuple[str, str]]:
    """Where the numbers come from."""
    commit, dirty = (lookup(result, "git", key) for key in ("commit", "dirty"))
    state = " with uncommitted changes" if dirty else ""
    origin = result.get("continued")
    told: list[tuple[str, Any]] = [
        ("commit", f"{commit}{state}" if commit else "none recorded"),
        ("fingerprint", result["fingerprint"]),
        ("code of the method", result["source_hash"]),
        ("data", result.get("data_stamp") or "stamp unknown"),
        ("device", result.get("device")),
        ("precision", result.get("precision")),
        ("compiled", result.get("compiled")),
        ("processes", result.get("world_size")),
        ("training images", result.get("train_images")),
        ("test images", result.get("test_images")),
        ("started from", result.get("started_from")),
        ("twin of", result.get("twin_of")),
        ("went on from", origin and f"epoch {origin['epochs']} of {origin['name']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in (result.get("versions") or {}).items())),
        ("tags", ", ".join(map(str, result.get("tags") or []))),
    ]
    return [(name, plain(value)) for name, value in told if value not in (None, "")]


def history_of(result: Result) -> list[dict[str, Any]]:
    """The curves of a page: a chart a metric, with its lines by split, epochs counted from 1."""
    history = result.get("history") or {}
    epochs = [epoch + 1 for epoch in history.get("epoch") or []]
    step = max(1, len(epochs) // _MOST_EPOCHS)
    metric = (result.get("headline") or "test/acc").partition("/")[2]
    charts = []
    for name, scale in ((metric, 100), ("loss", 1)):
        lines = []
        for split in ("train", "val", "test"):
            values = history.get(f"{split}/{name}") or []
            pairs = [(e, v) for e, v in zip(epochs, values, strict=False) if v is not None]
            kept = [*pairs[::step], *(pairs[-1:] if (len(pairs) - 1) % step else [])]
            if kept:
                points = [[epoch, round(scale * value, 5)] for epoch, value in kept]
                lines.append({"name": split, "points": points})
        if lines:
            charts.append({"title": METRICS.get(name, name), "lines": lines})
    return charts


def _metrics(result: Result) -> list[tuple[str, str, str]]:
    """Name, last and best value of every metric, as the result has them."""
    last, best = result["metrics"]["last"], result["metrics"].get("best") or {}
    names = [name for name in last if not isinstance(last[name], dict | list)]
    return [(name, _short(last[name]), _short(best.get(name))) for name in names]


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _config(result: Result) -> str:
    text = yaml.safe_dump(result["config"], sort_keys=False, allow_unicode=True, width=100)
    return highlighted(text, "yaml")


def _alike(place: int, members: list[Entry], to: Addresses) -> tuple[list[tuple[Entry, str]], int]:
    """The settings of one set nearest to a place in it with their pages, and how many more."""
    start = max(0, min(place - _MOST_ALIKE // 2, len(members) - _MOST_ALIKE))
    near = members[start : start + _MOST_ALIKE]
    return [(other, to.runs[other.runs[0][0]]) for other in near], len(members) - len(near)


def _tables(found: Collection, to: Addresses) -> dict[str, list[tuple[str, str]]]:
    """Name and address of the tables that each run stands in."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for sweep in found.sweeps:
        if sweep.name in to.tables:
            title = sweep.manifest.get("title") or sweep.name
            for key in sweep.found.results:
                tables.setdefault(key, []).append((title, to.tables[sweep.name]))
    return tables


def _line(key: str, result: Result, found: Collection, to: Addresses) -> Line:
    choices, score = result["choices"], percent_of(result)
    commit = lookup(result, "git", "commit") or ""
    cells = [
        Cell(key, key, to.runs[key], tuple(marks_of([(key, result)], found))),
        Cell("" if score is None else f"{score:.2f}", "" if score is None else f"{score:.6g}"),
        *(Cell(str(choices.get(group))) for group in ("quantizer", "backbone", "dataset")),
        Cell(str(choices.get("recipe"))),
        Cell(str(result["seed"]), str(result["seed"])),
        Cell(budget_of(result)),
        Cell(commit[:10]),
        Cell(result.get("device") or ""),
    ]
    return Line(cells, ("", ""), ("", ""))
