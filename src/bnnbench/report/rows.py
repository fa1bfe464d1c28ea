"""Cells of a sweep grouped into rows: the seeds of one setting, and what they measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnbench.report.markup import MISSING

Result = dict[str, Any]
METRIC_NAMES = {"acc": "accuracy", "map": "mAP"}  # of headlines, in words
CHOICES = ("quantizer", "backbone", "dataset", "loss", "recipe", "teacher")
OF_SETTINGS = "recipe."  # keys of what a method is trained with, not of the method
# The same, and what a recipe sets elsewhere: what a row is trained with, whatever its name.
OF_TRAINING = (OF_SETTINGS, "dataset.batch_size", "dataset.resize", "dataset.augmentation")


@dataclass
class Row:
    """One setting. A row without cells is a published number that nobody asked to measure.

    options: overrides of its cells as typed, without the seed.
    settings: the resolved config of its first cell by dotted key, whether it was run or not.
    cells: how many seeds the sweep asks for; results: those of the finished ones.
    errors, damaged: by name of the run, the last line of its error, what is wrong with its files.
    """

    options: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    cells: int = 0
    results: list[Result] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    published: dict[str, Any] | None = None

    def choice(self, group: str) -> str | None:
        """Name of the option chosen in a config group; None where nothing says.

        A recipe is what it came to (native where there is a native file); of a library's network
        the model says more than what was typed.
        """
        found = (lookup(result, "choices", group) for result in self.results)
        run = next((name for name in found if name is not None), None)
        model = self.settings.get("backbone.model") if group == "backbone" else None
        resolved = model or self.settings.get(f"{group}.name") or run
        typed = self.options.get(group)
        said = [resolved, run] if group == "recipe" else []
        said += [name for name in (resolved, run) if str(name).startswith(f"{typed}/")]
        return next(filter(None, [*said, typed, run, resolved]), None)

    def setting(self, key: str) -> Any:
        """Resolved value of an option such as "loss.lambda"; None where the config has no such."""
        return self.choice(key) if key in CHOICES else self.settings.get(key)

    def nested(self, key: str) -> Any:
        """A setting, or a mapping of those below it; None where the config has neither."""
        inner = {k: v for k, v in self.settings.items() if k.startswith(f"{key}.")}
        return self.settings.get(key, inner or None)

    def text(self, key: str) -> str | None:
        """A setting as tables print it; None where the row's config has no such key."""
        if key in CHOICES:
            return self.choice(key) or ("none" if key == "teacher" and self.cells else None)
        if key in self.settings:
            value = self.settings[key]
            # Lightning reads 1 as one batch and 1.0 as all of them
            share = isinstance(value, float) and key.endswith("_batches")
            return repr(value) if share else plain(value)
        inner = self.nested(key) or {}
        words = [f"{k.removeprefix(f'{key}.')}={plain(v)}" for k, v in inner.items()]
        return " ".join(words) or self.options.get(key)  # what no config keeps: as typed

    def numbers(self, *path: str) -> list[float]:
        """The number at a path of every finished result, e.g. ("operations", "ops")."""
        found = (lookup(result, *path) for result in self.results)
        return [float(value) for value in found if value is not None]

    def metric(self, name: str) -> list[float]:
        """A metric of the last epoch, on the split of the headline; name: such as "nll"."""
        splits = ((r, (r.get("headline") or "/").split("/")[0]) for r in self.results)
        found = (lookup(r, "metrics", "last", f"{split}/{name}") for r, split in splits)
        return [float(value) for value in found if value is not None]

    def headline(self, kind: str) -> list[float]:
        """Accuracy (or mAP) in percent of every finished seed; kind: "last" or "best" epoch."""
        found = (percent_of(result, kind) for result in self.results)
        return [value for value in found if value is not None]

    def words(self, fact: Callable[[Result], Any]) -> str:
        """A fact of the results as text; seeds that disagree are all named; "" if unknown."""
        found = (fact(result) for result in self.results)
        texts = [plain(value) for value in found if value is not None]
        return ", ".join(dict.fromkeys(texts))


def seedless(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run without its seed, which the data have as well."""
    own = {key: value for key, value in config.items() if key != "seed"}
    data = {key: value for key, value in own.get("dataset", {}).items() if key != "seed"}
    return own | ({"dataset": data} if data else {})


def dataset_of(row: Row) -> str:
    """The name of a row's data set; of a folder its own."""
    if folder := row.options.get("dataset.folder"):
        return Path(folder).name
    return str(row.settings.get("dataset.name") or row.choice("dataset") or MISSING)


def percent_of(result: Result, kind: str = "last") -> float | None:
    """Accuracy (or mAP) in percent, of the "last" or "best" epoch; None where there is none."""
    value = lookup(result, "metrics", kind, str(result.get("headline") or ""))
    return None if value is None else 100 * float(value)


def group_cells(
    manifest: dict[str, Any],
    results: dict[str, Result],
    failures: dict[str, str],
    damaged: dict[str, str] | None = None,
) -> list[Row]:
    """Rows of a sweep in the manifest's order, those of one backbone together.

    results, failures (error texts) and damaged (what is wrong) are keyed by run: two on different
    data have one fingerprint. Cells that differ only in the seed are one row; a run that stands
    twice in a row counts once.
    """
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    seen: set[tuple[int, str]] = set()
    for cell in manifest["cells"]:
        options = {k: str(v) for k, v in cell["overrides"].items() if k != "seed"}
        key = tuple(sorted(options.items()))
        row = rows.setdefault(key, Row(options, cell_settings(manifest, cell)))
        run = cell["run"]
        if (id(row), run) in seen:
            continue
        seen.add((id(row), run))
        row.cells += 1
        if run in results:
            row.results.append(results[run])
        elif run in (damaged or {}):
            row.damaged[run] = (damaged or {})[run]
        elif run in failures:
            row.errors[run] = _last_line(failures[run])
    return by_backbone(list(rows.values()))


def cell_settings(manifest: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """The resolved config of a cell by dotted key."""
    return manifest["shared"] | cell["settings"]


def by_backbone(rows: list[Row]) -> list[Row]:
    """The same rows, stably grouped: backbones in the order in which they first appear."""
    order = list(dict.fromkeys(row.options.get("backbone") for row in rows))
    return sorted(rows, key=lambda row: order.index(row.options.get("backbone")))


def option_keys(manifest: dict[str, Any]) -> list[str]:
    """Keys that tell the rows apart, the quantizer first; the quantizer alone if none varies."""
    swept = [key for key in manifest["swept"] if key != "seed"] or ["quantizer"]
    return sorted(swept, key=lambda key: key != "quantizer")


def settings_of(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """The setting of every row, such as "adam 0.001 cosine": what its recipe has of swept keys.

    The first keys that tell all settings apart: a weight decay follows from the optimizer. Where
    several are numbers these are named: "lr=0.01 weight_decay=0".
    """
    keys = [key for key in keys if key.startswith(OF_SETTINGS)]
    told = len({tuple(row.text(key) for key in keys) for row in rows})
    while keys and len({tuple(row.text(key) for key in keys[:-1]) for row in rows}) == told:
        keys.pop()
    numbers = [key for key in keys if all(_is_number(row.setting(key)) for row in rows)]
    named = numbers if len(numbers) > 1 else []
    return [" ".join(_said(row, key, key in named) for key in keys) for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(row: Row, key: str, named: bool) -> str:
    return f"{key.removeprefix(OF_SETTINGS)}=" * named + (row.text(key) or MISSING)


def lookup(result: Result, *path: str) -> Any:
    """The value at a path of nested mappings, or None where a key is missing."""
    value: Any = result
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def plain(value: Any) -> str:
    """A value of a config as text: yes or no, 0.0001, 16-16-32-64, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        whole = all(isinstance(item, int) for item in value)
        return ("-" if whole else ", ").join(map(plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _last_line(text: str) -> str:
    printable = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    lines = [line.strip() for line in printable if line.strip()]
    return lines[-1][:300] if lines else "no message"
