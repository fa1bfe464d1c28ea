"""One entry a setting: what was measured of it, and with which others it may be ranked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from bnnbench.records.fingerprint import flattened
from bnnbench.records.identity_keys import is_neutral
from bnnbench.report.efficiency import Bench, times_of
from bnnbench.report.matching import PRINTED, entry_dataset
from bnnbench.report.notes import is_stale_result
from bnnbench.report.published import distinct, is_verified
from bnnbench.report.rows import (
    METRIC_NAMES,
    OF_TRAINING,
    Result,
    lookup,
    percent_of,
    plain,
    seedless,
)
from bnnbench.report.tables import spread
from bnnbench.site.facts import backbone_of, bits_of, budget_of, dataset_of, structure_of
from bnnbench.site.grid import Mark, mark
from bnnbench.site.reading import Collection, Published

_PRINTED_NAMES = {printed: METRIC_NAMES[ours] for ours, printed in PRINTED.items()}


@dataclass
class Entry:
    """A setting with its seeds, or a published number.

    runs: name and seed of its results. score: the last epoch's mean in percent; text: with its
    deviation. numbers: ops, bytes, ms, params, train_s, best. comparable: what entries must share
    to be ranked with it: in words, the structure last. place: its rank and how many share that.
    training: how its recipe differs from that of others which share the rest. apart: how its config
    differs from others of its method there.
    """

    kind: str
    method: str
    backbone: str
    dataset: str
    bits: str
    budget: str
    score: float | None
    text: str
    comparable: tuple[str, str]
    recipe: str = ""
    loss: str = ""
    teacher: str = ""
    metric: str = ""
    seeds: int = 0
    device: str = ""
    training: str = ""
    apart: str = ""
    file: str = ""
    runs: list[tuple[str, int]] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    place: tuple[int, int] | None = None


def measured(found: Collection, bench: Bench | None) -> list[Entry]:
    """An entry for each setting of the results; seeds are one entry."""
    settings: dict[str, list[tuple[str, Result]]] = {}
    for key, result in found.runs.items():
        config = seedless(result["config"])
        # results on other data of one name, of runs that were cut, or without a config, are no
        # seeds of one setting
        same = [config or key, result["choices"], result.get("data_stamp"), budget_of(result)]
        settings.setdefault(json.dumps(same, sort_keys=True), []).append((key, result))
    entries = [_measured(group, found, bench) for group in settings.values()]
    results = [group[0][1] for group in settings.values()]
    _tell_data_apart(entries, results)
    _tell_trainings_apart(entries, results)
    _tell_apart(entries, results)
    return entries


def _tell_data_apart(entries: list[Entry], results: list[Result]) -> None:
    """Name data of one name by their stamp where they have more than one content."""
    stamps: dict[str, set[str]] = {}
    pairs = [
        (entry, result.get("data_stamp")) for entry, result in zip(entries, results, strict=True)
    ]
    for entry, stamp in pairs:
        stamps.setdefault(entry.dataset, set()).update([stamp] if stamp else [])
    several = {name for name, found in stamps.items() if len(found) > 1}
    for entry, stamp in pairs:
        if entry.dataset in several:
            entry.dataset += f" ({stamp[7:15] if stamp else 'of unknown content'})"
            entry.comparable = (_shared(entry), entry.comparable[1])


def _tell_trainings_apart(entries: list[Entry], results: list[Result]) -> None:
    """Part entries that share all but settings of the recipe: these are no methods' differences."""
    for pairs in _grouped(entries, results, lambda entry: entry.comparable):
        flat = [dict(_flat(result["config"])) for _, result in pairs]
        configs = [
            {
                k.partition(".")[2]: v
                for kind in OF_TRAINING
                for k, v in c.items()
                if k.startswith(kind)
            }
            for c in flat
        ]
        for (entry, _), words in zip(pairs, _differences(configs), strict=True):
            entry.training = words
            entry.comparable = (_shared(entry), entry.comparable[1])


def _tell_apart(entries: list[Entry], results: list[Result]) -> None:
    """Say of entries of one method in one set how their configs differ."""
    for pairs in _grouped(entries, results, lambda e: (e.method, e.loss, *e.comparable)):
        configs = [dict(_flat(result["config"])) for _, result in pairs]
        for (entry, _), words in zip(pairs, _differences(configs), strict=True):
            entry.apart = words


def _grouped(
    entries: list[Entry], results: list[Result], key: Callable[[Entry], tuple[str, ...]]
) -> Iterable[list[tuple[Entry, Result]]]:
    found: dict[tuple[str, ...], list[tuple[Entry, Result]]] = {}
    for entry, result in zip(entries, results, strict=True):
        found.setdefault(key(entry), []).append((entry, result))
    return found.values()


def _differences(configs: list[dict[str, str]]) -> list[str]:
    """Of each config the values that tell it from the others: of as few keys as tell all apart."""
    keys = dict.fromkeys(key for config in configs for key in config)
    telling = [key for key in keys if len({config.get(key) for config in configs}) > 1]

    def told(names: list[str]) -> int:
        return len({tuple(config.get(name) for name in names) for config in configs})

    for key in reversed(telling):
        rest = [name for name in telling if name != key]
        telling = rest if told(rest) == told(telling) else telling
    return [
        ", ".join(f"{key}={config.get(key, plain(None))}" for key in telling) for config in configs
    ]


def _flat(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted keys of a config with their values as text.

    Left out are seeds and classes, what is null, and what means the same as its absence.
    """
    for key, value in flattened(config).items():
        group, _, name = key.rpartition(".")
        kind = str(lookup(config, *group.split("."), "_target_"))
        if name not in ("seed", "_target_") and not (value is None or is_neutral(key, value, kind)):
            yield key, plain(value)


def _measured(group: list[tuple[str, Result]], found: Collection, bench: Bench | None) -> Entry:
    results = [result for _, result in group]
    first = results[0]
    choices, headline = first["choices"], first.get("headline") or ""
    scores = _percents(results, "last")
    times = times_of(first, bench)
    known = {
        "ops": lookup(first, "operations", "ops"),
        "bytes": lookup(first, "export", "bytes") or lookup(first, "operations", "packed_bytes"),
        "params": lookup(first, "operations", "params"),
        "ms": times and times.ms,
        "train_s": _mean(lookup(result, "time", "train_s") for result in results),
        "best": _mean(_percents(results, "best")),
    }
    metric = headline.partition("/")[2]
    entry = Entry(
        kind="measured",
        method=str(choices.get("quantizer")),
        backbone=backbone_of(first),
        dataset=dataset_of(first),
        bits=bits_of(first),
        budget=budget_of(first),
        score=mean(scores) if scores else None,
        text=spread(scores),
        comparable=("", ""),
        recipe=str(choices.get("recipe") or ""),
        loss=str(choices.get("loss") or ""),
        teacher=str(choices.get("teacher") or "none"),
        metric=METRIC_NAMES.get(metric, metric),
        seeds=len(group),
        device=str(first.get("device") or ""),
        runs=[(key, result["seed"]) for key, result in group],
        numbers={name: float(value) for name, value in known.items() if value is not None},
        marks=marks_of(group, found),
    )
    entry.comparable = (_shared(entry), structure_of(first))
    return entry


def _shared(entry: Entry) -> str:
    taught = f"teacher {entry.teacher}" if entry.teacher not in ("", "none") else ""
    training = f" ({entry.training})" if entry.training else ""
    recipe = f"recipe {entry.recipe}{training}" if entry.recipe else ""
    parts = [entry.dataset, entry.backbone, f"{entry.bits} bits", entry.budget, recipe, taught]
    return " \N{MIDDLE DOT} ".join(filter(None, parts))


def _percents(results: Iterable[Result], kind: str) -> list[float]:
    found = (percent_of(result, kind) for result in results)
    return [value for value in found if value is not None]


def _mean(values: Iterable[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def marks_of(group: list[tuple[str, Result]], found: Collection) -> list[Mark]:
    """What a reader must know of results before comparing them."""
    results = [result for _, result in group]
    marks = []
    if any(is_stale_result(result, found.hashes) for result in results):
        marks.append(mark("stale"))
    if any(result.get("ended") for result in results):
        marks.append(mark("partial"))
    if any(lookup(result, "git", "dirty") for result in results):
        marks.append(mark("dirty"))
    if any(key in found.local for key, _ in group):
        marks.append(mark("local"))
    return marks


def published(files: dict[str, Published]) -> Iterator[Entry]:
    """An entry for each number in percent that papers print, by the stem of its file."""
    for stem, content in files.items():
        name = content["metric"]["name"]
        if content["metric"]["unit"] != "percent":
            continue
        for row in distinct(content["rows"]):
            if name in row["values"]:
                yield _published(stem, content, row, name)


def _published(stem: str, content: Published, row: dict[str, Any], name: str) -> Entry:
    score, dataset = row["values"][name], entry_dataset(row, content) or "not said"
    marks = [] if is_verified(row, name) else [mark("unverified")]
    marks += [mark("swept")] if row.get("best_of_sweep") else []
    label = row["label"] if row["label"].lower() != row["method"] else ""
    entry = Entry(
        kind="published",
        method=row["method"],
        backbone=row["backbone"],
        dataset=dataset,
        bits=bits_of(row),
        budget="as published",
        score=score,
        text=f"{score:.2f}" if isinstance(score, float) else str(score),
        comparable=("", ""),
        loss=label,
        metric=_PRINTED_NAMES.get(name, name),
        file=stem,
        numbers={"params": 1e6 * row["params_m"]} if row.get("params_m") else {},
        marks=marks,
    )
    source = row.get("source") or "recalled, no source"
    parts = [dataset, row["backbone"], f"{entry.bits} bits", "published"]
    entry.comparable = (" \N{MIDDLE DOT} ".join(parts), f"{content['title']}")
    entry.device = f"{source}{'; ' + row['note'] if row.get('note') else ''}"
    return entry


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """The entries with those that are comparable together, the largest such sets first.

    Measured ones of one set get their place by score; published ones, and what stands alone, none.
    """
    sets: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        sets.setdefault((entry.kind, *entry.comparable), []).append(entry)
    sizes: dict[tuple[str, str], int] = {}
    for (kind, shared, _), members in sets.items():
        sizes[kind, shared] = sizes.get((kind, shared), 0) + len(members)
        members.sort(key=lambda e: (e.score is None, -(e.score or 0), e.method))
        if kind == "measured":
            _place(members)

    def before(item: tuple[tuple[str, str, str], list[Entry]]) -> tuple[Any, ...]:
        (kind, shared, structure), members = item
        held_out = "held-out" in members[0].dataset
        return kind, held_out, -sizes[kind, shared], shared, -len(members), structure

    return [entry for _, members in sorted(sets.items(), key=before) for entry in members]


def _place(members: list[Entry]) -> None:
    scores = [entry.score for entry in members if entry.score is not None]
    for entry in members if len(scores) > 1 else []:
        if entry.score is not None:
            entry.place = (scores.index(entry.score) + 1, len(scores))
