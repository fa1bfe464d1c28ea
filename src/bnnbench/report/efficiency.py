"""Tables of a bench file, and the times of a result's network in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.records.speeds import newest, timings_of
from bnnbench.report.markup import MISSING, Table
from bnnbench.report.rows import Result, lookup

Speeds = Mapping[str, Any]
PLAIN = "fp32"  # the network in full precision
INT8 = "int8"
# Columns of comparison tables, and which of a network's times they show.
TIMES = {"CPU ms": "ms", "x float": "x_float", "x int8": "x_int8"}
RATIOS = {"x float": "x_float", "x int8": "x_int8", "x simulated": "x_simulation"}
BRIEFLY = "x float / x int8"
NOT_SPEEDS = "the operation counts of other tables (OPs) are no times, and no ratio of them a speed"
ROUNDS = (
    "medians over rounds in which all took turns, of ratios with quartiles; one thread by its CPU "
    "time, two by the clock; weights are random, which changes no time"
)


class Bench(NamedTuple):
    """A bench file and the name that tables give it."""

    name: str
    speeds: Speeds


def bench_of(results_dir: Path) -> Bench | None:
    """The bench file under results/ that was measured last; None where there is no whole one."""
    try:
        found = newest(results_dir / "bench")
    except ValueError as error:  # whatever is wrong with it, tables stand without times
        print(f"no times: {error}", file=sys.stderr)
        return None
    return found and Bench(f"{results_dir.name}/bench/{found[0].name}", found[1])


class Times(NamedTuple):
    """Medians of batch 1 on one thread; None where a contender was not timed."""

    ms: float
    x_float: float | None
    x_int8: float | None


def times_of(result: Result, bench: Bench | None) -> Times | None:
    """The times of a result's network; None where none of its structure was timed.

    An exported network is the one of equal work. Others are those of the same method with the same
    options, structure, backbone, images and number of parameters, which a width or other classes
    change.
    """
    found = next((s for s in (bench.speeds["subjects"] if bench else []) if _is(s, result)), None)
    return None if bench is None or found is None else fastest(bench.speeds, found, 1, 1)


def file_ratio(result: Result, bench: Bench | None) -> float | None:
    """Bytes of the network in float over those of its packed file; None where it is not known."""
    subjects = bench.speeds["subjects"] if bench else []
    own = next((s for s in subjects if s["method"] != PLAIN and _is(s, result)), None)
    if own is None:
        return None
    plain = (s for s in subjects if s["method"] == PLAIN and s["network"] == own["network"])
    return next((s["bytes"] / own["bytes"] for s in plain), None)


def fastest(speeds: Speeds, subject: Mapping[str, Any], batch: int, threads: int) -> Times | None:
    """The times of a packed network, or the best ones of one in full precision."""
    kind = {"batch": batch, "threads": threads}
    found = [t for t in timings_of(speeds, subject, **kind) if t["way"] in _ways(subject)]
    best = min(found, key=lambda timing: timing["ms"][1], default=None)
    if best is None:
        return None
    ratios = (best[key] and best[key][1] for key in ("x_float", "x_int8"))
    return Times(best["ms"][1], *ratios)


def _ways(subject: Mapping[str, Any]) -> tuple[str, ...]:
    return ("float, eager", "float, compiled") if subject["method"] == PLAIN else ("packed",)


def _is(subject: Mapping[str, Any], result: Result) -> bool:
    work = lookup(result, "export", "work")
    if work and subject["work"]:
        return work == subject["work"]
    config = result.get("config") or {}
    data, ours = config.get("dataset") or {}, subject["quantizer"]
    theirs = config.get("quantizer") or {}
    return (
        lookup(config, "backbone", "name") == subject["backbone"]
        and [data.get("in_channels"), *[data.get("image_size")] * 2] == subject["image"]
        and result.get("structure") == subject["structure"]
        and lookup(result, "operations", "params") == subject["operations"]["params"]
        and all(theirs.get(key) == value for key, value in ours.items() if key in theirs)
    )


def note_of(bench: Bench) -> str:
    """What stands under a table with times."""
    machine = bench.speeds["machine"]
    return (
        f"CPU ms, x float, x int8: a network's milliseconds an image, batch 1, one thread, and how "
        "many times as long the best float and int8 networks of that backbone take, measured by "
        f"bnnbench bench on one CPU, {machine['cpu']} ({machine['kernel']}), {bench.name}; "
        f"{MISSING} where a row's structure was not timed"
    )


def tables(speeds: Speeds, name: str) -> list[tuple[str, Table]]:
    """The tables of a bench file with the ends of their files' names; ``name`` is the file's."""
    found = []
    if speeds["timings"]:
        found.append(("efficiency", networks(speeds, name)))
    if speeds["layers"]:
        found.append(("efficiency_layers", layers(speeds, name)))
    return found


def networks(speeds: Speeds, name: str) -> Table:
    """One row a distinct packed structure, and those of its network in float and int8."""
    settings = sorted({(t["batch"], t["threads"]) for t in speeds["timings"]})
    header = ["network", "method", "W/A bits", "file MB"]
    for place, (batch, threads) in enumerate(settings):
        at = f", batch {batch}, {threads} thread{'s' * (threads > 1)}"
        header.append(f"ms{' an image' * (batch > 1)}{at}")
        header += [f"{name}{at}" for name in (RATIOS if place == 0 else [BRIEFLY])]
    rows = [
        [*_named(subject, way), *_cells(speeds, subject, way, settings)]
        for subject in speeds["subjects"]
        for way in ("float", INT8)[: 2 if subject["method"] == PLAIN else 1]
    ]
    notes = [*_where(speeds, name), ROUNDS, *_contenders(speeds), NOT_SPEEDS]
    return Table("Efficiency: packed networks on a CPU", header, rows, notes)


def _named(subject: Mapping[str, Any], way: str) -> list[str]:
    sides, size = subject["bits"], subject["bytes"]
    if way == INT8:  # its file would hold a byte a weight
        return [subject["network"], INT8, "8/8", MISSING]
    return [
        subject["network"],
        subject["method"],
        f"{sides['w']}/{sides['a']}",
        f"{size / 1e6:.3g}",
    ]


def _cells(
    speeds: Speeds, subject: Mapping[str, Any], way: str, settings: list[tuple[int, int]]
) -> Iterator[str]:
    ways = (INT8,) if way == INT8 else _ways(subject)
    for place, (batch, threads) in enumerate(settings):
        timings = timings_of(speeds, subject, batch=batch, threads=threads)
        best = min(
            (timing for timing in timings if timing["way"] in ways),
            key=lambda timing: timing["ms"][1],
            default=dict.fromkeys(("ms", *RATIOS.values())),
        )
        yield MISSING if not best["ms"] else f"{best['ms'][1] / batch:.3g}"
        if place == 0:
            yield from (_ratio(best[key]) for key in RATIOS.values())
        else:
            parts = (best["x_float"], best["x_int8"])
            yield " / ".join(f"{part[1]:.2f}" if part else MISSING for part in parts)


def _ratio(quartiles: list[float] | None) -> str:
    if quartiles is None:
        return MISSING
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _where(speeds: Speeds, name: str) -> list[str]:
    machine, git = speeds["machine"], speeds["git"]
    commit = f"{git['commit'][:10]}{' with uncommitted changes' * bool(git['dirty'])}"
    busy = f", load {machine['load']:g} as it began" if machine["load"] is not None else ""
    return [
        f"measured on one machine: {machine['cpu']}, {machine['cores']} cores{busy}; kernel "
        f"{machine['kernel']}; torch {speeds['versions']['torch']}; commit "
        f"{commit if git['commit'] else 'none recorded'}; {name}",
        f"measured by {speeds['command']}",
    ]


def _contenders(speeds: Speeds) -> list[str]:
    best = {t["best_float"] for t in speeds["timings"] if t["best_float"]}
    notes = [
        "float: the same backbone in full precision in its own structure (fp32), the faster of "
        f"eager channels-last and torch.compile with frozen weights: {' or '.join(sorted(best))}; "
        "int8: torch's FX graph mode, layers of 8-bit weights and activations; simulated: the "
        "binary network as it is trained, eager, in floats; x: their time over the row's"
    ]
    for left in speeds["left_out"]:
        where = f"{left['network']}, batch {left['batch']}"
        notes.append(f"not timed: {left['way']} of {where}: {left['why']}")
    return notes


def layers(speeds: Speeds, name: str) -> Table:
    """Layers by shape, of one set and number of threads after another."""
    calls = list(next(iter(speeds["layers"]))["rows"][0]["microseconds"])
    header = ["layers", "threads", "layer", *(f"{call} µs" for call in calls)]
    header += ["x float", "x int8", "of the register limit"]
    rows = [
        [
            part["set"],
            str(part["threads"]),
            row["layer"],
            *(f"{row['microseconds'][call][1]:.0f}" for call in calls),
            *(_ratio(row[key]) for key in ("x float", "x int8")),
            f"{row['of the limit'][1]:.2f}" if row["of the limit"] else MISSING,
        ]
        for part in speeds["layers"]
        for row in part["rows"]
    ]
    limits = ", ".join(f"{loop} {rate:g}" for loop, rate in speeds["limits"].items())
    charged = (
        "1 bit: codes of the input, convolution and float output; from codes: without the first; a "
        "block: with shortcut, activation and the next layer's codes; float and int8 find their "
        "activations quantized"
    )
    notes = [*_where(speeds, name), ROUNDS, charged]
    notes += [f"GMAC/s out of a core's registers: {limits}"] if limits else []
    return Table("Efficiency: packed layers on a CPU", header, rows, [*notes, NOT_SPEEDS])
