"""Numbers that papers and READMEs print, read from `results/published/<table>.yaml` and checked.

`results/published/README.md` describes the keys. The files are only quoted beside our own
measurements; nothing is computed from them except a difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

_GROUPS = ("quantizer", "backbone", "dataset", "loss", "recipe", "teacher")
# What sets one row of a method apart from its plain row.
_VARIANT_KEYS = {"training", "variant", "losses", "varied", "hyper"}
# Two rows that agree in all of these are the same row.
_IDENTITY_KEYS = sorted(
    {"method", "label", "bits", "bases", "backbone", "dataset", "stages"} | _VARIANT_KEYS
)


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
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path.name}: not readable as YAML: {error}") from error
    validate(content, path.name)
    return content


def is_verified(row: dict[str, Any], key: str) -> bool:
    """Whether the value `key` of a row was read in its source rather than recalled."""
    return row["verified"] or key in row.get("verified_values", [])


def is_plain(row: dict[str, Any]) -> bool:
    """Whether a row is the method as such, not a two-step, ablated or re-run form of it."""
    return row.get("source_kind") != "reproduction" and not _VARIANT_KEYS & set(row)


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
    try:
        _File.model_validate(content)
    except ValidationError as error:
        lines = [f"{name}: {_message(content, dict(found))}" for found in error.errors()]
        raise ValueError("\n".join(lines)) from None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metric(_Model):
    name: str
    unit: str
    higher_is_better: bool


class _Protocol(_Model):
    dataset: str | list[str]
    backbones: str | list[str]
    known: list[str]


class _Source(_Model):
    id: str
    what: str
    read_at: str | None = None


class _Bits(_Model):
    """Bits of weights, activations, gradients and errors."""

    w: PositiveInt
    a: PositiveInt
    g: PositiveInt | None = None
    e: PositiveInt | None = None


class _Losses(_Model):
    kernel: bool
    feature: bool


class _Above(_Model):
    above: float


class _Alternate(_Model):
    values: dict[str, float] = Field(min_length=1)
    source: str


_Scalar = bool | int | float | str


class _Row(_Model):
    method: str = Field(min_length=1)
    label: str = Field(min_length=1)
    backbone: str = Field(min_length=1)
    bits: _Bits
    values: dict[str, float] = Field(min_length=1)
    verified: bool
    source: str | None
    run: dict[str, _Scalar | list[_Scalar] | _Above] | None = None
    source_kind: Literal["own", "quoted", "note", "reproduction"] | None = None
    verified_values: list[str] = []
    best_of_sweep: bool = False
    training: Literal["two_step", "multi_stage"] | None = None
    bases: _Bits | None = None
    dataset: str | None = None
    stages: str | None = None
    params_m: float | None = None
    variant: str | None = None
    losses: _Losses | None = None
    varied: str | None = None
    hyper: dict[str, float] | None = None
    alternates: list[_Alternate] = []
    note: str | None = None

    @field_validator("run")
    @classmethod
    def _names_a_network(cls, run: dict[str, Any] | None) -> dict[str, Any] | None:
        if run is not None and not {"quantizer", "backbone"} <= run.keys():
            raise ValueError("must name at least quantizer and backbone")
        if run and (unknown := {key.partition(".")[0] for key in run} - set(_GROUPS)):
            raise ValueError(f"names no group of the config: {sorted(unknown)}; {_GROUPS}")
        return run

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.verified and not self.source:
            raise ValueError("key 'source' is empty, so 'verified' cannot be true")
        if self.source and not self.source_kind:
            raise ValueError("key 'source_kind' must be given with a source")
        if unknown := sorted(set(self.verified_values) - self.values.keys()):
            raise ValueError(f"key 'verified_values' names {unknown}, not in 'values'")
        if self.run and self.source_kind == "reproduction":
            raise ValueError("key 'run': no run stands beside a reproduction")
        return self


class _File(_Model):
    title: str
    paper: str
    metric: _Metric
    protocol: _Protocol
    sources: list[_Source] = Field(min_length=1)
    rows: list[_Row] = Field(min_length=1)
    other_metrics: list[_Metric] = []

    @model_validator(mode="after")
    def _values_are_of_the_metrics(self) -> Self:
        units = {metric.name: metric.unit for metric in (self.metric, *self.other_metrics)}
        for number, row in enumerate(self.rows, start=1):
            for key, value in [*_items(row), *(i for a in row.alternates for i in _items(a))]:
                where = f"{_where(number, dict(row))}: key 'values'"
                if key not in units:
                    raise ValueError(f"{where}: unknown metric '{key}'; known: {sorted(units)}")
                if units[key] == "percent" and not 0 <= value <= 100:
                    raise ValueError(f"{where}: '{key}' is a percentage, got {value!r}")
        return self

    @model_validator(mode="after")
    def _no_row_stands_twice(self) -> Self:
        rows = [row.model_dump(exclude_unset=True) for row in self.rows]
        seen: set[str] = set()
        for number, row in enumerate(rows, start=1):
            identity = repr([*map(row.get, _IDENTITY_KEYS)])
            if identity in seen:
                raise ValueError(f"{_where(number, row)}: stands twice; use 'alternates' instead")
            seen.add(identity)
        runs = [repr(row["run"]) for row in distinct(rows) if "run" in row]
        if double := next((run for run in runs if runs.count(run) > 1), None):
            number, row = next(x for x in enumerate(rows, 1) if repr(x[1].get("run")) == double)
            raise ValueError(f"{_where(number, row)}: key 'run' is another row's as well")
        return self


def _items(row: _Row | _Alternate) -> list[tuple[str, float]]:
    return list(row.values.items())


def _where(number: int, row: Any) -> str:
    named = row if isinstance(row, dict) else {}
    return f"row {number} ({named.get('method')}, {named.get('backbone')})"


def _message(content: Any, error: dict[str, Any]) -> str:
    """One complaint of pydantic as a line that names the row and the key."""
    place = list(error["loc"])
    where = []
    if place[:1] == ["rows"] and len(place) > 1:
        where = [_where(place[1] + 1, content["rows"][place[1]])]
        place = place[2:]
    key = place.pop() if error["type"] in ("missing", "extra_forbidden") else None
    valid = "" if place else f"; valid: {sorted((_Row if where else _File).model_fields)}"
    where += [f"key '{'.'.join(map(str, place))}'"] if place else []
    if error["type"] == "missing":
        return ": ".join([*where, f"missing key(s) ['{key}']"])
    if error["type"] == "extra_forbidden":
        return ": ".join([*where, f"unknown key(s) ['{key}']{valid}"])
    said = error["msg"].removeprefix("Value error, ")
    return ": ".join([*where, said + (f", got {error['input']!r}" if place else "")])
