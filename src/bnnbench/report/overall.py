"""One score a method and track, from the sweeps of the tables that the tracks are measured with.

``tracks`` has the formulas. A track without results has no score, and neither has a method that
lacks a part of a track which another one has: over other parts its mean would be another number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from bnnbench.report import tracks
from bnnbench.report.efficiency import PLAIN, Bench, fastest
from bnnbench.report.figures import row_name
from bnnbench.report.relative import accuracy, fewer_operations, ratios, smaller, train_time
from bnnbench.report.rows import (
    Result,
    Row,
    dataset_of,
    group_cells,
    lookup,
    option_keys,
    settings_of,
)
from bnnbench.report.twins import twins_of

# Tables by the track that they measure; complexity is counted in all of them.
TABLES = {
    "task": "tasks",
    "architecture": "architectures_cifar10",
    "training": "sensitivity_cifar10",
}
# How models of timm that are no convolutional networks begin.
_KINDS = {"Transformer": ("vit", "deit", "swin", "cait"), "MLP": ("mixer", "resmlp", "gmlp")}
Parts = dict[str, dict[str, list[float]]]  # ratios by method and part


class Sweep(NamedTuple):
    """A sweep that has been read: its name, its manifest, its results by run."""

    name: str
    manifest: dict[str, Any]
    results: Mapping[str, Result]

    @property
    def table(self) -> str:
        """Name of its table; "" for a plain sweep."""
        return str((self.manifest.get("table") or {}).get("name") or "")


class Pair(NamedTuple):
    """A row and its full-precision twin, and what its recipe has of swept keys."""

    method: str
    setting: str
    row: Row
    twin: Row


class Track(NamedTuple):
    """A track's scores by method, the sweeps or files behind them, the parts, and who lacks any.

    details: what a score hides, a line a method.
    """

    scores: dict[str, float]
    sources: list[str]
    parts: list[str]
    lacking: dict[str, list[str]]
    details: Sequence[str] = ()


def overall(
    sweeps: Sequence[Sweep],
    bench: Bench | None = None,
    losses: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    tested: Sequence[str] = (),
) -> dict[str, Track]:
    """The tracks that there are results of, by their names, in the order of ``tracks.TRACKS``.

    Args:
        sweeps: of one scale, of any tables; those of ``TABLES`` count.
        bench: the bench file of packed networks.
        losses: by method and corruption, the accuracy that it costs (binarized, full precision).
        tested: names of what the losses are from.
    """
    by_track = {
        name: _comparable([sweep for sweep in sweeps if sweep.table == table and sweep.results])
        for name, table in TABLES.items()
    }
    counted = [sweep for sweeps in by_track.values() for sweep in sweeps]
    found = {
        "task": _relative(by_track["task"], dataset_of),
        "architecture": _relative(by_track["architecture"], kind_of),
        "robustness": _robustness(losses or {}, tested),
        "training": _training(by_track["training"]),
        "complexity": _complexity(counted),
    }
    methods = {method for track in found.values() for method in track.scores}
    found["inference"] = _inference(bench, methods)
    return {name: found[name] for name in tracks.TRACKS if found[name].scores}


def pairs_of(sweeps: Iterable[Sweep]) -> list[Pair]:
    """The rows of sweeps that have a twin, both with results; what two sweeps have counts once."""
    found: list[Pair] = []
    seen: set[str] = set()
    for sweep in sweeps:
        rows = group_cells(sweep.manifest, dict(sweep.results), {})
        keys = option_keys(sweep.manifest)
        named = ["quantizer", *(key for key in keys if key.startswith("quantizer."))]
        told = settings_of(rows, keys), twins_of(rows, keys)
        for row, setting, twin in zip(rows, *told, strict=True):
            runs = {str(result.get("fingerprint")) for result in row.results}
            if twin is not None and runs and twin.results and not runs & seen:
                seen |= runs
                found.append(Pair(row_name(row, named), setting, row, twin))
    return found


def kind_of(row: Row) -> str:
    """CNN, Transformer or MLP, by the name of a row's network."""
    told = [row.settings.get(f"backbone.{key}") for key in ("model", "name")]
    names = [str(name).rpartition("/")[2] for name in (*told, row.choice("backbone")) if name]
    return next((kind for kind, starts in _KINDS.items() if _any_starts(names, starts)), "CNN")


def _any_starts(names: Sequence[str], starts: tuple[str, ...]) -> bool:
    return any(name.startswith(starts) for name in names)


def _comparable(sweeps: Sequence[Sweep]) -> list[Sweep]:
    """The sweep that has its table's name, or the largest one, and what others have of its length.

    A table that was typed with another number of epochs, recipe or structure is another one, with
    more methods it is not, nor in another precision: rows are compared with twins of their own.
    """
    if not sweeps:
        return []
    usual = [s for s in sweeps if s.name == f"{s.table}_{s.manifest['scale']}"]
    first = usual[0] if usual else max(sweeps, key=lambda sweep: len(sweep.results))
    lengths = {_length(result) for result in first.results.values()}
    typed = {pair for cell in first.manifest["cells"] for pair in cell["overrides"].items()}
    kept = []
    for sweep in sweeps:
        cells = sweep.manifest["cells"] if sweep is not first else []
        alike = {cell["run"] for cell in cells if _chosen(cell) <= typed}
        results = sweep.results.items()
        found = {run: r for run, r in results if run in alike and _fits(r, lengths)}
        kept.append(sweep._replace(results=found))
    return [first, *(sweep for sweep in kept if sweep.results)]


def _chosen(cell: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What a cell was typed with beside its method."""
    free = ("quantizer", "seed", "compile", "trainer.precision")
    return {pair for pair in cell["overrides"].items() if not pair[0].startswith(free)}


def _fits(result: Result, lengths: set[tuple[Any, Any]]) -> bool:
    """Whether a result has the epochs of others on its data set, where there are any."""
    own = _length(result)
    return own in lengths or own[0] not in {dataset for dataset, _ in lengths}


def _length(result: Result) -> tuple[Any, Any]:
    return lookup(result, "choices", "dataset"), result.get("epochs")


def _relative(sweeps: Sequence[Sweep], part_of: Callable[[Row], str]) -> Track:
    known: Parts = {}
    for pair in pairs_of(sweeps):
        values = ratios(pair.row, pair.twin, accuracy)
        if values:
            known.setdefault(pair.method, {}).setdefault(part_of(pair.row), []).extend(values)

    def score(parts: Mapping[str, list[float]]) -> float:
        return tracks.relative({name: [(v, 1.0) for v in vs] for name, vs in parts.items()})

    return _scored(known, score, [sweep.name for sweep in sweeps])


def _robustness(
    losses: Mapping[str, Mapping[str, tuple[float, float]]], tested: Sequence[str]
) -> Track:
    """Corruptions that cost somebody nothing are left out for all: a ratio would say nothing."""
    pairs = [(name, pair) for by_name in losses.values() for name, pair in by_name.items()]
    free = {name for name, pair in pairs if min(pair) <= 0}
    known = {
        method: {name: pair for name, pair in by_name.items() if name not in free}
        for method, by_name in losses.items()
    }
    track = _scored(known, tracks.robustness, tested)
    details = [_lost(method, known[method].values()) for method in track.scores]
    return track._replace(details=details)


def _lost(method: str, pairs: Iterable[tuple[float, float]]) -> str:
    ours, twins = (100 * mean(side) for side in zip(*pairs, strict=True))
    return f"{method} loses {ours:.1f} points in the mean over corruptions, its twin {twins:.1f}"


def _training(sweeps: Sequence[Sweep]) -> Track:
    """Of methods whose every setting was measured, as those of their twins were.

    Who learns nothing at any setting has no spread either, and a high score: the details say which.
    """
    settings: dict[str, dict[str, Pair]] = {}
    for pair in pairs_of(sweeps):
        settings.setdefault(pair.method, {}).setdefault(pair.setting, pair)
    track = _scored(settings, _sensitivity, [sweep.name for sweep in sweeps])
    details = [_details(method, [*settings[method].values()]) for method in track.scores]
    return track._replace(details=details)


def _sensitivity(pairs: Mapping[str, Pair]) -> float | None:
    times = [(value, 1.0) for pair in pairs.values() for value in _times(pair)]
    ours, twins = ([_score(getattr(p, side)) for p in pairs.values()] for side in ("row", "twin"))
    return tracks.training(times, ours, twins) if times else None


def _details(method: str, pairs: Sequence[Pair]) -> str:
    times = [value for pair in pairs for value in _times(pair)]
    ours, twins = [_score(pair.row) for pair in pairs], [_score(pair.twin) for pair in pairs]
    return (
        f"{method} takes {mean(times):.2f} times as long as its twins, spreads by "
        f"{stdev(ours):.2f} points (twins {stdev(twins):.2f}) and has {max(ours):.2f} % at best "
        f"(twins {max(twins):.2f})"
    )


def _times(pair: Pair) -> list[float]:
    return ratios(pair.row, pair.twin, train_time)


def _score(row: Row) -> float:
    return mean(row.headline("last"))


def _complexity(sweeps: Sequence[Sweep]) -> Track:
    """Networks count once, however often they were trained."""
    sizes: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for pair in pairs_of(sweeps):
        bytes_, ops = (
            ratios(pair.row, pair.twin, kind)[:1] for kind in (smaller, fewer_operations)
        )
        if bytes_ and ops:
            part = f"{pair.row.choice('backbone')} on {dataset_of(pair.row)}"
            sizes.setdefault(pair.method, {})[part] = [(bytes_[0], ops[0])]
    return _scored(sizes, _two, [sweep.name for sweep in sweeps])


def _inference(bench: Bench | None, methods: Iterable[str]) -> Track:
    """Of one image at a time on one thread, the packed network against the float one."""
    known: dict[str, dict[str, list[tuple[float, float]]]] = {}
    subjects = bench.speeds["subjects"] if bench else []
    plain = {s["network"]: s["bytes"] for s in subjects if s["method"] == PLAIN}
    for subject in subjects:
        times = bench and fastest(bench.speeds, subject, 1, 1)
        if subject["method"] in methods and times and times.x_float and subject["network"] in plain:
            pair = times.x_float, plain[subject["network"]] / subject["bytes"]
            known.setdefault(subject["method"], {})[subject["network"]] = [pair]
    return _scored(known, _two, [bench.name] if bench else [])


def _two(parts: Mapping[str, list[tuple[float, float]]]) -> float:
    first, second = zip(*(pair for pairs in parts.values() for pair in pairs), strict=True)
    return tracks.two_ratios(first, second)


def _scored(
    known: Mapping[str, Mapping[str, Any]],
    score: Callable[[Any], float | None],
    sources: Sequence[str],
) -> Track:
    """Scores of the methods that have every part that any has."""
    parts = list(dict.fromkeys(part for by_part in known.values() for part in by_part))
    lacking = {m: [part for part in parts if part not in by_part] for m, by_part in known.items()}
    whole = {m: score(by_part) for m, by_part in known.items() if by_part and not lacking[m]}
    scores = {method: value for method, value in whole.items() if value is not None}
    return Track(scores, list(sources), parts, {m: left for m, left in lacking.items() if left})
