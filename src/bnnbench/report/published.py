"""Numbers that papers and READMEs print, read from `results/published/<table>.yaml` and checked.

`results/published/README.md` describes the keys. The files are only quoted beside our own
measurements; nothing is computed from them except a difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_FILE_KEYS = {"title", "paper", "metric", "protocol", "sources", "rows"}
_OPTIONAL_FILE_KEYS = {"other_metrics"}
_ROW_KEYS = {"method", "label", "bits", "backbone", "values", "source", "verified"}
_VARIANTS = {"sc"}  # the only ones that are matched: by the shortcuts of a run's VGG-16
_LOSS_KEYS = {"losses", "varied", "hyper"}  # such rows are matched by a run's losses
# What sets one row of a method apart from its plain row.
_VARIANT_KEYS = {"training", "variant"} | _LOSS_KEYS
_OPTIONAL_ROW_KEYS = _VARIANT_KEYS | {
    "bases",
    "best_of_sweep",
    "dataset",
    "stages",
    "params_m",
    "verified_values",
    "source_kind",
    "alternates",
    "note",
}
# Two rows that agree in all of these are the same row.
_IDENTITY_KEYS = sorted(
    {"method", "label", "bits", "bases", "backbone", "dataset", "stages"} | _VARIANT_KEYS
)
_SOURCE_KINDS = {"own", "quoted", "note", "reproduction"}
_TRAININGS = {"two_step", "multi_stage"}


def load_published(path: Path) -> dict[str, Any]:
    """Read and check one file of published numbers.

    Raises:
        FileNotFoundError: there is no such file; the message lists those that exist.
        ValueError: the content is wrong; the message names the file, the row and the key.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"no published numbers at {path}; the folder holds: {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not readable as YAML: {error}") from error
    validate(content, path.name)
    return content


def is_verified(row: dict[str, Any], key: str) -> bool:
    """Whether the value `key` of a row was read in its source rather than recalled."""
    return row["verified"] or key in row.get("verified_values", [])


def is_plain(row: dict[str, Any]) -> bool:
    """Whether a row is the method as such, not a two-step, ablated or re-run form of it."""
    return is_matchable(row) and not _VARIANT_KEYS & set(row)


def is_matchable(row: dict[str, Any]) -> bool:
    """Whether a run can stand beside a row: it is its authors' own."""
    known = "variant" not in row or row["variant"] in _VARIANTS
    return known and row.get("source_kind") != "reproduction"


def distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the repeats of runs that two sweeps share (`varied`), the first of each."""
    keys = [key for key in _IDENTITY_KEYS if key != "varied"]
    first = {repr([*map(row.get, keys), row["values"]]): row for row in reversed(rows)}
    return [row for row in rows if any(row is kept for kept in first.values())]


def datasets(published: dict[str, Any]) -> list[str]:
    """The data sets of a file, in the order its rows name them."""
    whole = published["protocol"]["dataset"]
    named = [row["dataset"] for row in published["rows"] if "dataset" in row]
    return list(dict.fromkeys(named)) or ([whole] if isinstance(whole, str) else list(whole))


def validate(content: Any, name: str) -> None:
    """Check the whole content of a file; `name` stands in the messages. Raises ValueError."""
    _check_keys(content, _FILE_KEYS, _OPTIONAL_FILE_KEYS, name)
    metrics = {
        m["name"]: m["unit"]
        for m in (_metric(m, name) for m in [content["metric"], *content.get("other_metrics", [])])
    }
    _check_keys(content["protocol"], {"dataset", "backbones", "known"}, set(), f"{name}: protocol")
    for source in _list(content["sources"], f"{name}: sources"):
        _check_keys(source, {"id", "what"}, {"read_at"}, f"{name}: sources")
    identities: set[str] = set()
    for number, row in enumerate(_list(content["rows"], f"{name}: rows"), start=1):
        where = f"{name}: row {number}"
        _check_keys(row, _ROW_KEYS, _OPTIONAL_ROW_KEYS, where)
        where = f"{where} ({row['method']}, {row['backbone']})"
        _check_row(row, metrics, where)
        identity = repr([row.get(key) for key in _IDENTITY_KEYS])
        _require(identity not in identities, f"{where}: stands twice; use 'alternates' instead")
        identities.add(identity)


def _check_row(row: dict[str, Any], metrics: dict[str, str], where: str) -> None:
    for key in ("method", "label", "backbone"):
        text = isinstance(row[key], str) and row[key] != ""
        _require(text, f"{where}: key '{key}' must be a text, got {row[key]!r}")
    for key in ("bits", "bases"):
        if key in row:
            _check_pair(row[key], f"{where}: key '{key}'")
    _check_values(row["values"], metrics, f"{where}: key 'values'")
    _check_losses(row, where)
    for other in row.get("alternates", []):
        _check_keys(other, {"values", "source"}, set(), f"{where}: key 'alternates'")
        _check_values(other["values"], metrics, f"{where}: key 'alternates'")
    _check_provenance(row, where)


def _check_losses(row: dict[str, Any], where: str) -> None:
    if "losses" in row:
        losses = row["losses"]
        switches = isinstance(losses, dict) and set(losses) == {"kernel", "feature"}
        switches = switches and all(type(value) is bool for value in losses.values())
        form = "{kernel: true|false, feature: true|false}"
        _require(switches, f"{where}: key 'losses' must be {form}, got {losses!r}")
    if "hyper" in row:
        hyper = row["hyper"]
        numbers = isinstance(hyper, dict) and all(type(v) in (int, float) for v in hyper.values())
        _require(numbers, f"{where}: key 'hyper' must map names to numbers, got {hyper!r}")


def _check_provenance(row: dict[str, Any], where: str) -> None:
    verified, source = row["verified"], row["source"]
    _require(type(verified) is bool, f"{where}: key 'verified' must be true or false: {verified!r}")
    _require(
        bool(source) or not verified,
        f"{where}: key 'source' is empty, so 'verified' cannot be true",
    )
    kind = row.get("source_kind")
    _require(
        not source or kind in _SOURCE_KINDS,
        f"{where}: key 'source_kind' must be one of {sorted(_SOURCE_KINDS)}, got {kind!r}",
    )
    best = row.get("best_of_sweep", False)
    _require(type(best) is bool, f"{where}: key 'best_of_sweep' must be true or false: {best!r}")
    unknown = sorted(set(row.get("verified_values", [])) - set(row["values"]))
    _require(not unknown, f"{where}: key 'verified_values' names {unknown}, not in 'values'")
    training = row.get("training", "two_step")
    _require(
        training in _TRAININGS,
        f"{where}: key 'training' must be one of {sorted(_TRAININGS)}, got {training!r}",
    )


def _check_values(values: Any, metrics: dict[str, str], where: str) -> None:
    mapping = isinstance(values, dict) and len(values) > 0
    _require(mapping, f"{where} must map metric names to numbers, got {values!r}")
    for key, value in values.items():
        _require(key in metrics, f"{where}: unknown metric '{key}'; known: {sorted(metrics)}")
        _require(type(value) in (int, float), f"{where}: '{key}' must be a number, got {value!r}")
        percentage = metrics[key] != "percent" or 0 <= value <= 100
        _require(percentage, f"{where}: '{key}' is a percentage, got {value!r}")


def _check_pair(pair: Any, where: str) -> None:
    whole = isinstance(pair, dict) and {"w", "a"} <= set(pair) <= {"w", "a", "g", "e"}
    whole = whole and all(type(v) is int and v > 0 for v in pair.values())
    _require(
        whole,
        f"{where} must be {{w: n, a: n}} with whole numbers (g and e may follow), got {pair!r}",
    )


def _metric(metric: Any, name: str) -> dict[str, Any]:
    _check_keys(metric, {"name", "unit", "higher_is_better"}, set(), f"{name}: metric")
    return metric


def _list(value: Any, where: str) -> list[Any]:
    full = isinstance(value, list) and len(value) > 0
    _require(full, f"{where} must be a list with at least one entry")
    return value


def _check_keys(mapping: Any, required: set[str], optional: set[str], where: str) -> None:
    _require(isinstance(mapping, dict), f"{where} must be a mapping of keys to values")
    missing, valid = sorted(required - set(mapping)), required | optional
    _require(not missing, f"{where}: missing key(s) {missing}")
    unknown = sorted(set(mapping) - valid)
    _require(not unknown, f"{where}: unknown key(s) {unknown}; valid: {sorted(valid)}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
