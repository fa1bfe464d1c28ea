"""Cells of a sweep grouped into rows: the seeds of one setting, and what they measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bnnbench.records import store

Result = dict[str, Any]


@dataclass
class Row:
    """One setting. A row without cells is a published number that nobody asked to measure."""

    options: dict[str, str]  # overrides of its cells, without the seed
    cells: int = 0  # how many seeds the sweep asks for
    results: list[Result] = field(default_factory=list)  # of the finished ones
    errors: dict[str, str] = field(default_factory=dict)  # run name -> last line of its error
    published: dict[str, Any] | None = None

    def choice(self, group: str) -> str | None:
        """Name of the option chosen in a config group; None where no result or override says."""
        typed = self.options.get(group)
        found = (r["choices"][group] for r in self.results if group in r["choices"])
        run = next(found, None)
        return run if typed is None or str(run).startswith(f"{typed}/") else typed

    def setting(self, key: str) -> Any:
        """Value of an option such as "loss.lambda": as run, else as typed; None: neither says."""
        found = (lookup(result, "config", *key.split(".")) for result in self.results)
        return next((value for value in found if value is not None), self.options.get(key))

    def stages(self) -> str | None:
        """Channels of the network's stages, "16-16-32-64"; None where its config names none."""
        widths = self.setting("backbone.widths")
        return None if widths is None else "-".join(re.findall(r"\d+", str(widths)))

    def numbers(self, *path: str) -> list[float]:
        """The number at a path of every finished result, e.g. ("operations", "ops")."""
        found = (lookup(result, *path) for result in self.results)
        return [float(value) for value in found if value is not None]

    def headline(self, kind: str) -> list[float]:
        """Accuracy (or mAP) in percent of every finished seed; kind: "last" or "best" epoch."""
        found = (lookup(r, "metrics", kind, headline_key(r) or "") for r in self.results)
        return [100 * float(value) for value in found if value is not None]

    def words(self, fact: Callable[[Result], Any]) -> str:
        """A fact of the results as text; seeds that disagree are all named; "" if unknown."""
        found = (fact(result) for result in self.results)
        texts = [_text(value) for value in found if value is not None]
        return ", ".join(dict.fromkeys(texts))


def group_cells(
    manifest: dict[str, Any], results: dict[str, Result], failures: dict[str, str]
) -> list[Row]:
    """Rows of a sweep in the manifest's order, those of one backbone together.

    results and failures (error texts) are keyed by fingerprint. Cells that differ only in the
    seed are one row; a run that stands twice in a row counts once.
    """
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    seen: set[tuple[int, str]] = set()
    for cell in manifest["cells"]:
        options = {k: str(v) for k, v in cell["overrides"].items() if k != "seed"}
        row = rows.setdefault(tuple(sorted(options.items())), Row(options))
        fingerprint = cell["fingerprint"]
        if (id(row), fingerprint) in seen:
            continue
        seen.add((id(row), fingerprint))
        row.cells += 1
        if fingerprint in results:
            row.results.append(results[fingerprint])
        elif fingerprint in failures:
            row.errors[cell["run"]] = _last_line(failures[fingerprint])
    return by_backbone(list(rows.values()))


def by_backbone(rows: list[Row]) -> list[Row]:
    """The same rows, stably grouped: backbones in the order in which they first appear."""
    order = list(dict.fromkeys(row.options.get("backbone") for row in rows))
    return sorted(rows, key=lambda row: order.index(row.options.get("backbone")))


def option_keys(manifest: dict[str, Any]) -> list[str]:
    """Keys that tell the rows apart, the quantizer first; the quantizer alone if none varies."""
    swept = [key for key in manifest["swept"] if key != "seed"] or ["quantizer"]
    return sorted(swept, key=lambda key: key != "quantizer")


def lookup(result: Result, *path: str) -> Any:
    """The value at a path of nested mappings, or None where a key is missing."""
    value: Any = result
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def headline_key(result: Result) -> str | None:
    """Name of a run's headline metric, e.g. "test/acc"; None if it has none."""
    return store.headline_key(lookup(result, "metrics", "last") or {})


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
