"""Whole networks: packed, simulated, in full precision and in int8, in one interleaved run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnnbench.bench import contenders
from bnnbench.bench.contenders import COMPILED, EAGER, INT8
from bnnbench.bench.subjects import METHODS, NETWORKS, Subject, subject, twin
from bnnbench.bench.timing import Call, interleaved, quartiles

__all__ = ["METHODS", "NETWORKS", "Found", "Setting", "measure"]

PACKED, SIMULATED = "packed", "simulated"
LONGEST = 5.0  # seconds of one call, above which a simulation is left out


class Setting(NamedTuple):
    """What is timed, and how long."""

    networks: Sequence[str]
    methods: Sequence[str]
    batches: Sequence[int] | None  # None: each network's own
    threads: Sequence[int]
    ways: Sequence[str]
    seconds: float


class Found(NamedTuple):
    """What a bench file holds of networks."""

    subjects: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    left_out: list[dict[str, Any]]


def measure(setting: Setting) -> Iterator[Found]:
    """Of one network and batch after another, what was found."""
    for name in setting.networks:
        torch.set_num_threads(1)  # threads that wait for a busy machine make preparation long
        subjects = [subject(name, method) for method in setting.methods]
        net, facts = twin(name)
        found = Found([facts, *(each.facts for each in subjects)], [], [])
        took: dict[str, float] = {}  # seconds of an image
        for batch in setting.batches or NETWORKS[name].batches:
            x = contenders.images(NETWORKS[name].image, batch)
            calls, left = calls_of(net, subjects, x, setting.ways, took)
            found.left_out.extend({"network": name, "batch": batch, **each} for each in left)
            for threads in setting.threads:
                times = interleaved(calls, threads, setting.seconds)
                took |= {way: float(np.median(ms)) / 1e3 / batch for way, ms in times.items()}
                found.timings.extend(
                    {"network": name, "batch": batch, "threads": threads, **row}
                    for row in rows(times)
                )
        yield found


def calls_of(
    net: nn.Module, subjects: Sequence[Subject], x: Tensor, ways: Sequence[str], took: dict
) -> tuple[dict[str, Call], list[dict[str, str]]]:
    """The contenders by name, and which there are not and why."""
    calls: dict[str, Call] = {}
    left: list[dict[str, str]] = []
    makers = {EAGER: contenders.eager, COMPILED: contenders.compiled, INT8: contenders.int8}
    for way, make in makers.items():
        if way not in ways:
            continue
        try:
            calls[way] = make(net, x)
        except Exception as error:  # a compiler or a trace that gives up costs its row alone
            lines = str(error).strip().splitlines() or [type(error).__name__]
            left.append({"way": way, "why": f"{type(error).__name__}: {lines[0][:200]}"})
    for each in subjects:
        method = each.facts["method"]
        calls[f"{PACKED} {method}"] = contenders.eager(each.packed, x)
        if SIMULATED not in ways:
            continue
        way = f"{SIMULATED} {method}"
        if took.get(way, 0.0) * len(x) > LONGEST:
            left.append({"way": way, "why": f"a call takes more than {LONGEST:g} s"})
        else:
            calls[way] = contenders.eager(each.simulation, x)
    return calls, left


def rows(times: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """A timing for each contender; ratios are of the same rounds."""
    floats = [way for way in (EAGER, COMPILED) if way in times]
    best = min(floats, key=lambda way: float(np.median(times[way])), default=None)
    for way, ms in times.items():
        plain = way in (EAGER, COMPILED, INT8)
        kind, _, method = (way, "", "") if plain else way.partition(" ")
        row = {
            "method": method or "fp32",
            "way": kind,
            "rounds": len(ms),
            "ms": quartiles(ms),
            "best_float": best,
        }
        others = {"x_float": best, "x_int8": INT8, "x_simulation": f"{SIMULATED} {method}"}
        ratios = {
            key: quartiles(times[other] / ms) if other in times else None
            for key, other in others.items()
        }
        yield row | ratios
