"""Entries and comparison tables as the grids that pages show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bnnbench.report.markup import MISSING, right_aligned
from bnnbench.report.notes import MARKS
from bnnbench.report.rows import METRIC_NAMES, Row, dataset_of
from bnnbench.report.tables import Table, scientific, significant
from bnnbench.site.entries import Entry
from bnnbench.site.facts import bits_of, budget_of, structure_of
from bnnbench.site.grid import Cell, Column, Grid, Line, Mark, cell_of, mark


@dataclass
class Addresses:
    """Where the pages of runs, tables and methods stand, by what they are called."""

    runs: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)


_COLUMNS = (
    Column("rank", "Among settings that share bits, budget and structure", narrow=True),
    Column("method", "The quantizer", narrow=True),
    Column("score %", "Last epoch on the test set; ± over seeds", number=True, narrow=True),
    Column(f"best %{MARKS['best']}", "The best epoch, selected on test data", number=True),
    Column("OPs", "Multiply-accumulates, binary ones divided by 64", number=True, narrow=True),
    Column("packed MB", "Binarized weights at one bit, or the exported file", number=True),
    Column("CPU ms", "An image, batch 1, one thread, where it was timed", number=True),
    Column("params M", "Parameters in millions", number=True, shown=False),
    Column("train s", "Seconds of training, on its device", number=True, shown=False),
    Column("seeds", "Finished runs", number=True),
    Column("loss, options", "The loss, and what sets rows of one method apart"),
    Column("kind", "Measured here, or printed by a paper", facet="kind"),
    Column("data set", facet="dataset", shown=False),
    Column("backbone", facet="backbone", shown=False),
    Column("W/A bits", "Of weights and activations", facet="bits", shown=False),
    Column("recipe", facet="recipe", shown=False),
    Column("budget", "Length of the training", facet="budget", shown=False),
    Column("metric", shown=False),
    Column("device", "That trained it; of published numbers their source", shown=False),
)


def leaderboard(name: str, entries: Sequence[Entry], to: Addresses) -> Grid:
    """A line an entry, in their order, under what they share."""
    headings: dict[str, str] = {}
    lines = []
    for place, entry in enumerate(entries):
        shared = entry.comparable[0]
        group = headings.setdefault(shared, f"{len(headings):05d}")
        lines.append(_line(entry, (shared, group), f"{place:05d}", to))
    firsts: dict[tuple[str, str], str] = {}  # lines of one structure have the first one's key
    for number, line in enumerate(lines):
        key = firsts.setdefault((line.group[1], line.within[0]), line.within[1])
        lines[number] = line._replace(within=(line.within[0], key))
    return Grid(name, list(_COLUMNS), lines)


def _line(entry: Entry, group: tuple[str, str], place: str, to: Addresses) -> Line:
    numbers = entry.numbers
    page = to.runs[entry.runs[0][0]] if entry.runs else to.published.get(entry.file, "")
    cells = [
        _rank(entry),
        Cell(entry.method, entry.method, to.methods.get(entry.method, "")),
        Cell(entry.text, _order(entry.score), page, tuple(entry.marks)),
        _number(numbers.get("best"), "{:.2f}".format),
        _number(numbers.get("ops"), scientific),
        _number(numbers.get("bytes"), lambda value: significant(value / 1e6)),
        _number(numbers.get("ms"), significant),
        _number(numbers.get("params"), lambda value: f"{value / 1e6:.3f}"),
        _number(numbers.get("train_s"), significant),
        _number(entry.seeds or None, str),
        Cell(", ".join(filter(None, [entry.loss, entry.apart]))),
        *(Cell(text) for text in (entry.kind, entry.dataset, entry.backbone, entry.bits)),
        *(Cell(text) for text in (entry.recipe, entry.budget, entry.metric, entry.device)),
    ]
    what = "" if entry.kind == "published" else "structure: "
    structure = f"{what}{entry.comparable[1] or 'plain'}"
    point = "" if entry.kind == "published" else point_of(entry)
    return Line(cells, group, (structure, place), point)


def _rank(entry: Entry) -> Cell:
    if entry.place is None:
        return Cell("", "99999", marks=(mark("printed" if entry.kind == "published" else "alone"),))
    place, among = entry.place
    return Cell("", str(place), marks=(Mark("rank", str(place), f"{place} of {among}"),))


def _order(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _number(value: float | None, form) -> Cell:
    if value is None:
        return Cell("", marks=(mark("missing"),))
    return Cell(form(value), _order(value))


def point_of(entry: Entry) -> str:
    """What the chart needs of an entry: its set, score, OPs, bytes, milliseconds."""
    if entry.score is None:
        return ""
    costs = [entry.numbers.get(name) for name in ("ops", "bytes", "ms")]
    return _point(entry.dataset, entry.budget, entry.metric, entry.score, costs)


def _point(
    dataset: str, budget: str, metric: str, score: float, costs: Sequence[float | None]
) -> str:
    where = f"{dataset}, {budget}".replace("|", " ")
    return "|".join([where, metric, f"{score:.4g}", *map(_order, costs)])


def comparison_grid(table: Table, rows: Iterable[Row], to: Addresses) -> Grid:
    """A sweep's comparison table: the same cells, marks explained, runs and methods linked.

    Rows of other bits, budget or structure stand under a heading of their own.
    """
    rows = list(rows)
    numbers = right_aligned([table.header, *table.rows])
    facets = _facets(rows)
    columns = [_column(title, number) for title, number in zip(table.header, numbers, strict=True)]
    shown = {column.facet for column in columns}
    extra = [facet for facet in facets if facet.replace(" ", "") not in shown]
    columns += [Column(name, facet=name.replace(" ", ""), shown=False) for name in extra]
    lines = []
    for row, texts in zip(rows, table.rows, strict=True):
        cells = _cells(row, texts, table.header, numbers, to)
        cells += [Cell(facets[facet][id(row)]) for facet in extra]
        lines.append(Line(cells, *_headings(row, facets), _row_point(row)))
    return Grid("table", columns, _numbered(lines))


def _facets(rows: list[Row]) -> dict[str, dict[int, str]]:
    """What rows are filtered by, for those facets in which they differ."""
    values = {"data set": {id(row): dataset_of(row) for row in rows}}
    for group in ("backbone", "recipe"):
        values[group] = {id(row): row.text(group) or MISSING for row in rows}
    values["bits"] = {id(row): bits_of(_known(row)) for row in rows}
    values["budget"] = {id(row): _budget(row) for row in rows}
    values["kind"] = {id(row): _kind(row) for row in rows}
    return {name: found for name, found in values.items() if len(set(found.values())) > 1}


def _known(row: Row) -> dict:
    return row.results[0] if row.results else row.published or {}


def _budget(row: Row) -> str:
    if row.results:
        return budget_of(row.results[0])
    return "not run" if row.cells else "as published"


def _kind(row: Row) -> str:
    if row.results:
        return "measured and published" if row.published else "measured"
    return "published" if row.published else "not run"


def _column(title: str, number: bool) -> Column:
    reasons = {
        MARKS["best"]: "as most papers report it: selected on test data",
        "delta": "last epoch minus published",
        "OPs": "multiply-accumulates, binary ones divided by 64",
    }
    why = next((why for sign, why in reasons.items() if sign in title), "")
    narrow = title in ("quantizer", "OPs") or "(last epoch)" in title
    facet = {"dataset": "dataset", "backbone": "backbone", "recipe": "recipe"}.get(title, "")
    facet = "bits" if title.endswith(" bits") else facet
    return Column(title, why, number, facet, shown=True, narrow=narrow)


def _cells(
    row: Row, texts: list[str], header: list[str], numbers: list[bool], to: Addresses
) -> list[Cell]:
    reasons = "; ".join([*row.errors.values(), *row.damaged.values()])
    cells = []
    for text, title, number in zip(texts, header, numbers, strict=True):
        address = ""
        if title == "quantizer":
            address = to.methods.get(row.choice("quantizer") or "", "")
        score = "(last epoch)" in title
        if score and row.results:
            address = to.runs.get(str(row.results[0]["name"]), "")
        is_number = number or score or title.startswith("published")
        cells.append(cell_of(text, is_number, reasons, address))
    return cells


def _headings(
    row: Row, facets: dict[str, dict[int, str]]
) -> tuple[tuple[str, str], tuple[str, str]]:
    """What a row may be ranked with, in words: the facets that differ, and the structure."""
    told = [facets[name][id(row)] for name in ("data set", "backbone") if name in facets]
    bits = bits_of(_known(row)) if row.results or row.published else ""
    told += [f"{bits} bits"] if bits else []
    told += [_budget(row)]
    told += [f"recipe {facets['recipe'][id(row)]}"] if "recipe" in facets else []
    structure = f"structure: {structure_of(row.results[0])}" if row.results else ""
    return (" \N{MIDDLE DOT} ".join(told), ""), (structure, "")


def _numbered(lines: list[Line]) -> list[Line]:
    """The lines with the keys that keep headings in the order in which they first stand."""
    groups: dict[str, str] = {}
    inner: dict[tuple[str, str], str] = {}
    for line in lines:
        groups.setdefault(line.group[0], f"{len(groups):05d}")
        inner.setdefault((line.group[0], line.within[0]), f"{len(inner):05d}")
    return [
        line._replace(
            group=(line.group[0], groups[line.group[0]]),
            within=(line.within[0], inner[line.group[0], line.within[0]]),
        )
        for line in lines
    ]


def _row_point(row: Row) -> str:
    scores = row.headline("last")
    if not scores:
        return ""
    values = [row.numbers("operations", key) for key in ("ops", "packed_bytes")]
    costs = [*(found[0] if found else None for found in values), None]
    metric = (row.results[0].get("headline") or "/").split("/")[1]
    metric = METRIC_NAMES.get(metric, metric)
    score = sum(scores) / len(scores)
    return _point(dataset_of(row), _budget(row), metric, score, costs)
