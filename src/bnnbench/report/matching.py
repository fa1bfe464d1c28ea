"""Which published number belongs beside which row of a sweep: the row whose `run` fits it.

`results/published/README.md` says how a published row names its run.
"""

from __future__ import annotations

from typing import Any

from bnnbench.report.published import datasets, distinct, is_plain, is_verified
from bnnbench.report.rows import Row, by_backbone

_WIDTHS, _LOSS_WEIGHTS = "backbone.widths", ("loss.lambda", "loss.theta")
# By a row's id: its published number, and whether somebody has read it in its source.
Quoted = dict[int, tuple[float, bool]]
PRINTED = {"acc": "top1", "map": "map"}  # a headline's metric as published files call it
# Swept, these leave a network the one that was published: runs name widths, dropout regularises.
_NO_STRUCTURE = {_WIDTHS, "backbone.dropout"}


def with_published(
    rows: list[Row], published: dict[str, Any], manifest: dict[str, Any]
) -> list[Row]:
    """Attach to each row its published number; append the numbers that no row measures.

    The appended ones stand after the last row of their backbone.
    """
    entries = distinct(published["rows"])
    for row in rows:
        built = _chosen_structure(row, manifest)
        found = [entry for entry in entries if _is_run_of(row, entry, built)]
        # Two that cannot be told apart: none is claimed.
        row.published = found[0] if len(found) == 1 else None
    matched = [id(row.published) for row in rows]
    rest = [entry for entry in entries if id(entry) not in matched]
    names = [_identity(entry) for entry in entries]
    return by_backbone(
        [*rows, *(_unmeasured(entry, names.count(_identity(entry)) > 1) for entry in rest)]
    )


def matches(wanted: Any, value: Any) -> bool:
    """Whether a setting is what a `run` wants: the value, one of a list, or a number above one.

    A setting that is a list itself (widths) is compared as a whole.
    """
    if isinstance(wanted, dict):
        return isinstance(value, (int, float)) and value > wanted["above"]
    if isinstance(wanted, list) and not isinstance(value, list):
        return any(matches(one, value) for one in wanted)
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


def is_comparable(row: Row, manifest: dict[str, Any], published: dict[str, Any]) -> bool:
    """Whether what a row measured and what was published are one metric on one test set.

    At scale=demo nothing is, whatever the data: it is far shorter than what was published.
    """
    if not row.results or manifest.get("scale") == "demo":
        return False
    split, _, metric = (row.results[0].get("headline") or "/").partition("/")
    if split != "test" or PRINTED.get(metric) != published["metric"]["name"]:
        return False
    theirs = entry_dataset(row.published, published) if row.published else None
    return theirs is not None and row.choice("dataset") == theirs


def quoted_beside(rows: list[Row], manifest: dict[str, Any], published: dict[str, Any]) -> Quoted:
    """Of rows, by their id, what was published and whether it was read in its source.

    Rows that the sweep did not measure count where measured ones of their data and backbone do.
    """
    name = published["metric"]["name"]
    comparable = [row for row in rows if is_comparable(row, manifest, published)]
    known = {(row.choice("dataset"), row.choice("backbone")) for row in comparable}
    found = {}
    for row in rows:
        entry = row.published or {"values": {}}
        place = row.published and (entry_dataset(entry, published), entry["backbone"])
        same = row in comparable or (not row.cells and place in known)
        if name in entry["values"] and same:
            found[id(row)] = (float(entry["values"][name]), is_verified(entry, name))
    return found


def published_options(options: list[str], published: dict[str, Any]) -> list[str]:
    """The columns that name a row, with those that the published rows need as well."""
    rows = published["rows"]
    needed = ["quantizer"]
    needed += ["backbone"] if len({row["backbone"] for row in rows}) > 1 else []
    needed += [_WIDTHS] if len({row.get("stages") for row in rows} - {None}) > 1 else []
    needed += ["dataset"] if len(datasets(published)) > 1 else []
    needed += _LOSS_WEIGHTS if any(_has_weights(row) for row in rows) else ()
    return [*needed, *(key for key in options if key not in needed)]


def entry_dataset(entry: dict[str, Any], published: dict[str, Any]) -> str | None:
    """The data set of a published row; None where its file leaves it open."""
    whole = published["protocol"]["dataset"]
    return entry.get("dataset", whole if isinstance(whole, str) else None)


def _chosen_structure(row: Row, manifest: dict[str, Any]) -> set[str]:
    """Keys of the backbone that a row was typed with, not by its table, or that are swept."""
    table = manifest.get("table") or {}
    scale = (table.get("scales") or {}).get(str(manifest.get("scale"))) or {}
    own: set[tuple[str, str]] = set()
    for line in _lines(table) + _lines(scale):
        for key, _, values in (word.partition("=") for word in line.split()):
            own |= {(key, value.lower()) for value in values.split(",")}
    return {
        key
        for key, value in row.options.items()
        if key.startswith("backbone.")
        and (key in manifest["swept"] or (key, value.lower()) not in own)
    }


def _lines(of: dict[str, Any]) -> list[str]:
    return [str(line) for key in ("common", "sweep") for line in of.get(key) or []]


def _is_run_of(row: Row, entry: dict[str, Any], built: set[str]) -> bool:
    """A row that chooses a structure which the run does not name is another network."""
    run = entry.get("run")
    if run is None or built - _NO_STRUCTURE - run.keys():
        return False
    return all(matches(wanted, row.setting(key)) for key, wanted in run.items())


def _has_weights(entry: dict[str, Any]) -> bool:
    return set(entry.get("hyper") or {}) == {"lambda", "theta"}


def _identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    named = ("method", "backbone", "dataset", "stages", "bits", "hyper")
    return tuple(str(entry.get(key)) for key in named)


def _unmeasured(entry: dict[str, Any], ambiguous: bool) -> Row:
    named = entry["method"]
    if ambiguous or not (is_plain(entry) or _has_weights(entry)):
        named = f"{named}: {entry['label']}"
    options = {"quantizer": named, "backbone": entry["backbone"]}
    if "dataset" in entry:
        options["dataset"] = entry["dataset"]
    settings = {_WIDTHS: entry["stages"]} if "stages" in entry else {}
    if _has_weights(entry):
        values = (entry["hyper"]["lambda"], entry["hyper"]["theta"])
        settings |= dict(zip(_LOSS_WEIGHTS, values, strict=True))
    return Row(options, settings, published=entry)
