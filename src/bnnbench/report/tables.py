"""The comparison table of a sweep: published and measured numbers, cost and structure.

What all rows share stands in one note, what differs becomes a column, so that nothing that makes
rows incomparable stays hidden. Rows keep the order of the sweep: they are never ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import Any

from bnnbench.report.efficiency import TIMES, Bench, times_of
from bnnbench.report.markup import MISSING, Table, spread
from bnnbench.report.matching import is_comparable, published_options, with_published
from bnnbench.report.notes import MARKS, facts_of, is_stale, notes_of
from bnnbench.report.published import is_verified
from bnnbench.report.relative import columns as relative_columns
from bnnbench.report.relative import file_column
from bnnbench.report.rows import METRIC_NAMES, Result, Row, group_cells, lookup, option_keys
from bnnbench.report.twins import Gap, gaps, reasons

__all__ = ["Table", "comparison", "rows_of"]

Column = tuple[str, Callable[[Row], str]]
GAP = "gap to twin"


def comparison(
    manifest: dict[str, Any],
    results: dict[str, Result],
    failures: dict[str, str],
    published: dict[str, Any] | None = None,
    source_hashes: dict[str, str] | None = None,
    damaged: dict[str, str] | None = None,
    bench: Bench | None = None,
) -> Table:
    """The comparison table of one sweep.

    Args:
        manifest: content of the sweep's `sweep.json`.
        results: finished results by run.
        failures: error texts of failed runs by run.
        published: a file read by `load_published`, or None.
        source_hashes: hash of the code behind each result as it is now, by fingerprint; results
            of older code are marked.
        damaged: what is wrong with the files of a run, by run.
        bench: the bench file that times are looked up in, or None.
    """
    hashes = source_hashes or {}
    rows = rows_of(manifest, results, failures, published, damaged)
    options = keys = option_keys(manifest)
    if published:
        options = published_options(options, published)
    naming, alike = _split_options(options, rows)
    different, shared = facts_of(rows, options)
    asked = (manifest.get("table") or {}).get("columns") or []
    extra = [_EXTRA_COLUMNS[name] for name in asked if name in _EXTRA_COLUMNS]
    extra += relative_columns(asked, rows, keys)
    extra += [file_column(bench)] if "smaller_file" in asked else []
    scores, costs = _score_columns(rows, manifest, published, hashes), _cost_columns(rows, bench)
    below = gaps(rows, keys)
    if any(gap.points for gap in below):
        seeds = [name for name, _ in scores].index("seeds")
        scores.insert(seeds, _gap_column(rows, below))
    columns = [*scores, *costs, *extra]
    columns = [_bits_column(rows), *_without_empty(columns, rows)]
    columns = [
        *naming,
        *columns,
        *(_fact_column(*fact) for fact in different),
    ]
    texts = [[text(row) for _, text in columns] for row in rows]
    header = [name for name, _ in columns]
    notes = notes_of(manifest, rows, header, texts, alike, shared, published, bench)
    if GAP in header:  # some row stands beside its twin
        if absent := [name for name, _ in extra if name not in header]:
            notes.append(f"not measured of any row and its twin: {', '.join(absent)}")
        notes += [f"{GAP} {MISSING}: {line}" for line in reasons(rows, below)]
    return Table(title_of(manifest), header, texts, notes)


def rows_of(
    manifest: dict[str, Any],
    results: dict[str, Result],
    failures: dict[str, str],
    published: dict[str, Any] | None,
    damaged: dict[str, str] | None,
) -> list[Row]:
    """The rows of a sweep's table, in its order; see ``comparison``."""
    rows = group_cells(manifest, results, failures, damaged)
    return with_published(rows, published, manifest) if published else rows


def width(sides: Iterable[tuple[int, int]]) -> str:
    """Bits and bases of each side: 1/1, 1x5/1x3, 2/8/8/8."""
    return "/".join(f"{bits}x{bases}" if bases > 1 else f"{bits}" for bits, bases in sides)


def significant(value: float) -> str:
    """Three significant digits, whole numbers from 100 on: 0.0490, 2.16, 45.1, 1234."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def scientific(value: float) -> str:
    """Three decimals and a bare exponent, e.g. 1.070e6."""
    digits, exponent = f"{value:.3e}".split("e")
    return f"{digits}e{int(exponent)}"


def title_of(manifest: dict[str, Any]) -> str:
    """A sweep's title: its own, its table's or its name; with the scale."""
    title = manifest.get("title") or (manifest.get("table") or {}).get("title") or manifest["name"]
    scale = manifest.get("scale")
    return f"{title} (scale={scale})" if scale else title


def _split_options(options: list[str], rows: list[Row]) -> tuple[list[Column], list[str]]:
    """Columns of the options that tell rows apart, and the others as texts ("recipe unified").

    Where all rows agree in everything, the first option still names them.
    """
    texts = {key: [row.text(key) for row in rows] for key in options}
    telling = [key for key in options if len(set(texts[key])) > 1] or options[:1]
    alike = [f"{key} {texts[key][0]}" for key in options if key not in telling and texts[key][0]]
    return [(key, lambda row, key=key: row.text(key) or MISSING) for key in telling], alike


def _without_empty(columns: list[Column], rows: list[Row]) -> list[Column]:
    """The columns that hold something; all of them as long as there is no result at all."""
    if not any(row.results for row in rows):
        return columns
    return [column for column in columns if any(column[1](row) != MISSING for row in rows)]


def _fact_column(name: str, fact: Callable[[Result], Any]) -> Column:
    return name, lambda row: row.words(fact) or MISSING


def _score_columns(
    rows: list[Row],
    manifest: dict[str, Any],
    published: dict[str, Any] | None,
    hashes: dict[str, str],
) -> list[Column]:
    keys = [key for row in rows for r in row.results if (key := r.get("headline"))]
    keys = keys or [manifest.get("headline") or "test/acc"]
    metric = " or ".join(dict.fromkeys(METRIC_NAMES[key.split("/")[1]] for key in keys))
    columns: list[Column] = [
        (f"{metric} % (last epoch)", lambda row: _last(row, hashes)),
        (f"best epoch %{MARKS['best']}", lambda row: spread(row.headline("best"))),
    ]
    if any(key.endswith("/map") for key in keys):
        columns.append(("COCO mAP %", lambda row: _percent(row, "coco_map")))
    columns.append(("seeds", _seeds))
    if not published:
        return columns
    what = published["metric"]
    unit = "%" if what["unit"] == "percent" else what["name"]
    columns.insert(0, (f"published {unit}", lambda row: _published(row, what["name"])))
    if any(_delta(row, manifest, published) != MISSING for row in rows):
        columns.insert(2, ("delta", lambda row: _delta(row, manifest, published)))
    return columns


def _last(row: Row, hashes: dict[str, str]) -> str:
    if not row.results and (row.damaged or row.errors):
        return "damaged" if row.damaged else "failed"
    return spread(row.headline("last")) + (MARKS["stale"] if is_stale(row, hashes) else "")


def _percent(row: Row, name: str) -> str:
    """A metric of the last epoch beside the headline, in percent."""
    return spread([100 * value for value in row.metric(name)])


def _published(row: Row, name: str) -> str:
    if not row.published or name not in row.published["values"]:
        return MISSING
    mark = MARKS["swept"] if row.published.get("best_of_sweep") else ""
    mark += "" if is_verified(row.published, name) else MARKS["unverified"]
    return f"{row.published['values'][name]}{mark}"


def _delta(row: Row, manifest: dict[str, Any], published: dict[str, Any]) -> str:
    """Last epoch minus published, where both are the same metric on the same test set."""
    name, measured = published["metric"]["name"], row.headline("last")
    quoted = (row.published or {}).get("values") or {}
    if not measured or name not in quoted or not is_comparable(row, manifest, published):
        return MISSING
    return f"{mean(measured) - quoted[name]:+.2f}"


def _gap_column(rows: list[Row], below: list[Gap]) -> Column:
    by_row = {id(row): gap for row, gap in zip(rows, below, strict=True)}
    return GAP, lambda row: spread([*by_row[id(row)].points.values()])


def _bits_column(rows: list[Row]) -> tuple[str, Callable[[Row], str]]:
    """W/A, and G/E as well where a row trains with few bits of them."""
    known = [row.results[0] if row.results else row.published for row in rows]
    trained = any({"g", "e"} & set((entry or {}).get("bits") or {}) for entry in known)
    sides = ("w", "a", "g", "e") if trained else ("w", "a")
    return "/".join(sides).upper() + " bits", lambda row: _bits(row, sides)


def _bits(row: Row, sides: Sequence[str]) -> str:
    known = row.results[0] if row.results else row.published
    if not known or not known.get("bits"):
        return MISSING
    bits, bases = known["bits"], known.get("bases") or {}
    return width((bits.get(side, 32), bases.get(side, 1)) for side in sides)


def _seeds(row: Row) -> str:
    if not row.results:
        return MISSING
    finished = len(row.results)
    return f"{finished}" if finished == row.cells else f"{finished} of {row.cells}"


def _cost(name: str, form: Callable[[float], str], *path: str) -> Column:
    def text(row: Row) -> str:
        values = row.numbers(*path)
        return form(mean(values)) if values else MISSING

    return name, text


def _epochs(result: Result) -> Any:
    """The finished epochs; "3 of 10" where a run ended before its planned length."""
    epochs, planned = result.get("epochs"), result.get("planned_epochs")
    short = result.get("ended") and planned is not None and planned != epochs
    return f"{epochs} of {planned}" if short else epochs


def _megabytes(count: float) -> str:
    return significant(count / 1e6)


def _cost_columns(rows: list[Row], bench: Bench | None) -> list[Column]:
    """Size, operations and times; of packed files their own size, and the counted one beside it."""
    sizes = [_cost("packed MB", _megabytes, "operations", "packed_bytes")]
    if any(row.numbers("export", "bytes") for row in rows):
        sizes = [
            _cost("packed MB", _megabytes, "export", "bytes"),
            _cost("counted MB", _megabytes, "operations", "packed_bytes"),
        ]
    times = [] if bench is None else [_time(name, key, bench) for name, key in TIMES.items()]
    return [
        _cost("params (M)", lambda n: f"{n / 1e6:.3f}", "operations", "params"),
        _cost("OPs", scientific, "operations", "ops"),
        *sizes,
        *([column for column in times if any(column[1](row) != MISSING for row in rows)]),
        _training(rows),
        ("epochs", lambda row: row.words(_epochs) or MISSING),
    ]


def _training(rows: list[Row]) -> Column:
    """Seconds of training: of the processor, if all rows have them; other work leaves these be."""
    timed = [result for row in rows for result in row.results if result.get("time")]
    if timed and all(lookup(result, "time", "cpu_s") is not None for result in timed):
        return _cost("train CPU s", significant, "time", "cpu_s")
    return _cost("train s", significant, "time", "train_s")


def _time(name: str, key: str, bench: Bench) -> Column:
    def text(row: Row) -> str:
        found = (times_of(result, bench) for result in row.results)
        values = [getattr(times, key) for times in found if times is not None]
        known = [value for value in values if value is not None]
        return significant(mean(known)) if known else MISSING

    return name, text


def _compression(with_scales: bool) -> Column:
    """Bytes of all parameters in fp32 over the packed bytes."""

    def text(row: Row) -> str:
        dense, packed, scales = (
            row.numbers("operations", key) for key in ("fp32_bytes", "packed_bytes", "scale_bytes")
        )
        if not (dense and packed and scales):
            return MISSING
        return f"{mean(dense) / (mean(packed) + with_scales * mean(scales)):.2f}"

    return "compression with scales" if with_scales else "compression", text


# What a table may ask for with `columns:`, by the names in bnnbench.sweep.expand.TABLE_COLUMNS.
_EXTRA_COLUMNS: dict[str, Column] = {
    "compression": _compression(with_scales=False),
    "compression_with_scales": _compression(with_scales=True),
    "nll": ("NLL", lambda row: spread(row.metric("nll"))),
    "brier": ("Brier", lambda row: spread(row.metric("brier"))),
    "ece": ("ECE %", lambda row: _percent(row, "ece")),
    "top5": ("top-5 %", lambda row: _percent(row, "top5")),
    "published_params_mb": ("published params MB", lambda row: _published(row, "params_mb")),
    "published_mflops": ("published MFLOPs", lambda row: _published(row, "mflops")),
}
