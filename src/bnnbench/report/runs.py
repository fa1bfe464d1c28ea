"""A tidy table of a sweep: one row a run, raw values, for pandas and its like.

Accuracy and mAP stand in percent in the columns named so, every metric as the result has it
besides. What is not known is empty. Epochs of `best_epoch` are counted from 0, as in results.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from bnnbench.report.markup import csv_cell
from bnnbench.report.matching import with_published
from bnnbench.report.notes import is_stale_result
from bnnbench.report.reading import Found
from bnnbench.report.rows import (
    CHOICES,
    Result,
    Row,
    cell_settings,
    group_cells,
    lookup,
    plain,
)

Record = dict[str, Any]
_FACTS: dict[str, tuple[str, ...]] = {
    "epochs": ("epochs",),
    "planned_epochs": ("planned_epochs",),
    "ended": ("ended",),
    "params": ("operations", "params"),
    "ops": ("operations", "ops"),
    "packed_bytes": ("operations", "packed_bytes"),
    "scale_bytes": ("operations", "scale_bytes"),
    "train_s": ("time", "train_s"),
    "cpu_s": ("time", "cpu_s"),
    "images_per_s": ("time", "images_per_s"),
    "train_memory_mb": ("time", "train_memory_mb"),
    "precision": ("precision",),
    "compiled": ("compiled",),
    "device": ("device",),
    "commit": ("git", "commit"),
    "dirty": ("git", "dirty"),
    "data_stamp": ("data_stamp",),
}


def runs_csv(
    manifest: dict[str, Any],
    found: Found,
    published: dict[str, Any] | None,
    hashes: dict[str, str],
) -> str:
    """The runs of a sweep as CSV, in the order of its cells."""
    rows = group_cells(manifest, *found)
    if published:
        rows = with_published(rows, published, manifest)
    quoted = {_key(row.options): row for row in rows if row.cells}
    metric = published["metric"]["name"] if published else ""
    records = []
    for cell in manifest["cells"]:
        result = found.results.get(cell["run"])
        stale = is_stale_result(result, hashes) if result else None
        records.append(
            {"run": cell["run"], "fingerprint": cell["fingerprint"], "state": _state(cell, found)}
            | _settings(manifest, cell, result)
            | _measured(result)
            | {"stale": stale}
            | _published(quoted[_key(cell["overrides"])], metric)
        )
    out = io.StringIO()
    header = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in r.items()} for r in records)
    return out.getvalue()


def _state(cell: Record, found: Found) -> str:
    kinds = zip(("finished", "failed", "damaged"), found, strict=True)
    return next((kind for kind, runs in kinds if cell["run"] in runs), "missing")


def _settings(manifest: dict[str, Any], cell: Record, result: Result | None) -> Record:
    """Options, seed, and each swept key, by the resolved config of the cell."""
    settings, typed = cell_settings(manifest, cell), cell["overrides"]
    row = Row(typed, settings, cells=1, results=[result] if result else [])
    record: Record = {group: row.text(group) for group in CHOICES}
    record["seed"] = settings.get("seed", typed.get("seed"))
    swept = [key for key in manifest["swept"] if key not in record]
    return record | {key: settings.get(key, row.text(key)) for key in swept}


def _measured(result: Result | None) -> Record:
    result = result or {}
    headline, metrics = result.get("headline"), result.get("metrics") or {}
    last, best = metrics.get("last") or {}, metrics.get("best") or {}
    record: Record = {
        "headline": headline,
        "last_percent": _percent(last.get(headline)),
        "best_percent": _percent(best.get(headline)),
        "best_epoch": best.get("epoch"),
    }
    scalars = {key: value for key, value in last.items() if not isinstance(value, (dict, list))}
    return record | scalars | {name: lookup(result, *path) for name, path in _FACTS.items()}


def _published(row: Row, metric: str) -> Record:
    values: Record = (row.published or {}).get("values") or {}
    return {"published": values.get(metric), "published_metric": metric if values else None}


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = plain(value) if isinstance(value, list) else value
    return csv_cell(text) if isinstance(text, str) else text


def _key(options: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, str(v)) for k, v in options.items() if k != "seed"))


def runs_name(stem: str) -> str:
    """Name of the file beside a table: `runs.csv`, or `<stem>_runs.csv` among other sweeps'."""
    return f"{beside_name(stem, 'runs')}.csv"


def beside_name(stem: str, what: str) -> str:
    """Name, without its ending, of a file beside a table that stands in its folder alone or not."""
    return what if stem == "table" else f"{stem}_{what}"
