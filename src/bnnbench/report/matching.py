"""Which published number belongs beside which row of a sweep."""

from __future__ import annotations

from typing import Any

from bnnbench.report.published import datasets, is_plain
from bnnbench.report.rows import Row, by_backbone


def with_published(
    rows: list[Row], published: dict[str, Any], manifest: dict[str, Any]
) -> list[Row]:
    """Attach to each row its published number; append the numbers that no row measures.

    The appended ones stand after the last row of their backbone.
    """
    structural = [k for k in manifest["swept"] if k.startswith("backbone.")]
    matched: list[int] = []
    for row in rows:
        # A row that changes a network's structure is not the network that was published.
        if not any(key in row.options for key in structural):
            row.published = _match(row, published)
            matched.append(id(row.published))
    rest = [entry for entry in published["rows"] if id(entry) not in matched]
    names = [_identity(entry) for entry in published["rows"]]
    return by_backbone(
        [*rows, *(_unmeasured(entry, names.count(_identity(entry)) > 1) for entry in rest)]
    )


def published_options(options: list[str], published: dict[str, Any]) -> list[str]:
    """The columns that name a row, with those that the published rows need as well."""
    backbones = {entry["backbone"] for entry in published["rows"]}
    needed = ["quantizer"]
    needed += ["backbone"] if len(backbones) > 1 else []
    needed += ["dataset"] if len(datasets(published)) > 1 else []
    return [*needed, *(key for key in options if key not in needed)]


def entry_dataset(entry: dict[str, Any], published: dict[str, Any]) -> str | None:
    """The data set of a published row; None where its file leaves it open."""
    whole = published["protocol"]["dataset"]
    return entry.get("dataset", whole if isinstance(whole, str) else None)


def _match(row: Row, published: dict[str, Any]) -> dict[str, Any] | None:
    several = len(datasets(published)) > 1
    found = [
        entry
        for entry in published["rows"]
        if is_plain(entry)
        and entry["method"] == row.choice("quantizer")
        and entry["backbone"] == row.choice("backbone")
        and (not several or entry_dataset(entry, published) == row.choice("dataset"))
        and all(_same_bits(entry, result) for result in row.results)
    ]
    # Two candidates (say, two widths of one network) cannot be told apart: neither is claimed.
    return found[0] if len(found) == 1 else None


def _same_bits(entry: dict[str, Any], result: dict[str, Any]) -> bool:
    one = {"w": 1, "a": 1}
    return entry["bits"] == result["bits"] and entry.get("bases", one) == result["bases"]


def _identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["method"], entry["backbone"], entry.get("dataset"), str(entry["bits"])


def _unmeasured(entry: dict[str, Any], ambiguous: bool) -> Row:
    named = entry["method"]
    if ambiguous or not is_plain(entry):
        named = f"{named}: {entry['label']}"
    options = {"quantizer": named, "backbone": entry["backbone"]}
    if "dataset" in entry:
        options["dataset"] = entry["dataset"]
    return Row(options, published=entry)
