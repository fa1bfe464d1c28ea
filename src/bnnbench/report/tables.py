"""The comparison table of a sweep: published and measured numbers, cost and structure.

What all rows share stands in one note, what differs becomes a column, so that nothing that makes
rows incomparable stays hidden. Rows keep the order of the sweep: they are never ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from bnnbench.report.markup import MISSING, Table
from bnnbench.report.matching import entry_dataset, published_options, with_published
from bnnbench.report.notes import MARKS, USUAL, facts_of, is_stale, notes_of, option_fact
from bnnbench.report.published import is_verified
from bnnbench.report.rows import Result, Row, group_cells, headline_key, lookup, option_keys

__all__ = ["Table", "comparison"]

Column = tuple[str, Callable[[Row], str]]

_METRIC_NAMES = {"acc": "accuracy", "map": "mAP"}
_SAME_METRIC = {("top1", "acc"), ("map", "map")}


def comparison(
    manifest: dict[str, Any],
    results: dict[str, Result],
    failures: dict[str, str],
    published: dict[str, Any] | None = None,
    source_hashes: dict[str, str] | None = None,
) -> Table:
    """The comparison table of one sweep.

    Args:
        manifest: content of the sweep's `sweep.json`.
        results: finished results by fingerprint.
        failures: error texts of failed runs by fingerprint.
        published: a file read by `load_published`, or None.
        source_hashes: hash of each quantizer's code as it is now; results of older code are
            marked.
    """
    hashes = source_hashes or {}
    rows, options = group_cells(manifest, results, failures), option_keys(manifest)
    if published:
        rows = with_published(rows, published, manifest)
        options = published_options(options, published)
    different, shared = facts_of(rows, options)
    extra = [_EXTRA_COLUMNS[name] for name in (manifest.get("table") or {}).get("columns") or []]
    columns = [*_score_columns(rows, manifest, published, hashes), *_COST_COLUMNS, *extra]
    columns = [_bits_column(rows), *_without_empty(columns, rows)]
    columns = [
        *map(_option_column, options),
        *columns,
        *(_fact_column(*fact) for fact in different),
    ]
    texts = [[text(row) for _, text in columns] for row in rows]
    header = [name for name, _ in columns]
    notes = notes_of(manifest, rows, header, texts, shared, published)
    return Table(_title(manifest), header, texts, notes)


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation; the plain value for one, a dash for none. Two decimals."""
    if not values:
        return MISSING
    text = f"{mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.2f}"


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


def _title(manifest: dict[str, Any]) -> str:
    title = (manifest.get("table") or {}).get("title") or manifest["name"]
    scale = manifest.get("scale")
    return f"{title} (scale={scale})" if scale else title


def _option_column(key: str) -> Column:
    def text(row: Row) -> str:
        if row.results and (fact := option_fact(key)):
            return row.words(fact) or MISSING  # a network without shortcuts has no such fact
        if key == "backbone.widths":
            return row.stages() or ("default" if row.cells else MISSING)
        if key.startswith("loss.") and (value := row.setting(key)) is not None:
            return _plain_number(value)  # a weight was typed by one, printed by another
        if any(_has_no(key, result) for result in row.results):
            return MISSING  # the weight of a loss that this row does not have
        left_out = USUAL.get(key) if row.results else None
        return row.choice(key) or left_out or ("default" if row.cells else MISSING)

    return key, text


def _has_no(key: str, result: Result) -> bool:
    group, _, name = key.partition(".")
    config = lookup(result, "config", group)
    return bool(name) and isinstance(config, dict) and lookup(config, *name.split(".")) is None


def _plain_number(value: Any) -> str:
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


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
    key = next((k for row in rows for r in row.results if (k := headline_key(r))), "test/acc")
    metric = _METRIC_NAMES[key.split("/")[1]]
    columns: list[Column] = [
        (f"{metric} % (last epoch)", lambda row: _last(row, hashes)),
        (f"best epoch %{MARKS['best']}", lambda row: spread(row.headline("best"))),
        ("COCO mAP %", _coco),
        ("seeds", _seeds),
    ]
    if not published:
        return columns
    what = published["metric"]
    unit = "%" if what["unit"] == "percent" else what["name"]
    columns.insert(0, (f"published {unit}", lambda row: _published(row, what["name"])))
    if any(_delta(row, manifest, published) != MISSING for row in rows):
        columns.insert(2, ("delta", lambda row: _delta(row, manifest, published)))
    return columns


def _last(row: Row, hashes: dict[str, str]) -> str:
    if row.errors and not row.results:
        return "failed"
    return spread(row.headline("last")) + (MARKS["stale"] if is_stale(row, hashes) else "")


def _coco(row: Row) -> str:
    """Of detectors: COCO's mean over IoU 0.5 to 0.95."""
    split = (headline_key(row.results[0]) or "").split("/")[0] if row.results else ""
    return spread([100 * value for value in row.numbers("metrics", "last", f"{split}/coco_map")])


def _published(row: Row, name: str) -> str:
    if not row.published or name not in row.published["values"]:
        return MISSING
    mark = MARKS["swept"] if row.published.get("best_of_sweep") else ""
    mark += "" if is_verified(row.published, name) else MARKS["unverified"]
    return f"{row.published['values'][name]}{mark}"


def _delta(row: Row, manifest: dict[str, Any], published: dict[str, Any]) -> str:
    """Last epoch minus published, where both are the same metric on the same test set."""
    name, measured = published["metric"]["name"], row.headline("last")
    if not measured or not row.published or manifest.get("scale") == "demo":
        return MISSING
    split, _, metric = (headline_key(row.results[0]) or "/").partition("/")
    comparable = split == "test" and (name, metric) in _SAME_METRIC
    if not comparable or row.choice("dataset") != entry_dataset(row.published, published):
        return MISSING
    if name not in row.published["values"]:
        return MISSING
    return f"{mean(measured) - row.published['values'][name]:+.2f}"


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


_COST_COLUMNS: list[Column] = [
    _cost("params (M)", lambda n: f"{n / 1e6:.3f}", "operations", "params"),
    _cost("OPs", scientific, "operations", "ops"),
    _cost("packed MB", lambda n: significant(n / 1e6), "operations", "packed_bytes"),
    _cost("train s", significant, "time", "train_s"),
    ("epochs", lambda row: row.words(lambda r: lookup(r, "epochs")) or MISSING),
]


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
    "published_params_mb": ("published params MB", lambda row: _published(row, "params_mb")),
    "published_mflops": ("published MFLOPs", lambda row: _published(row, "mflops")),
}
