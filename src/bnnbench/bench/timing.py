"""Calls timed turn by turn, so that a noisy machine slows all contenders alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

Call = Callable[[], Any]
K = TypeVar("K")  # how a caller names them
LEAST, MOST = 5, 60  # rounds
SHORT = 0.05  # seconds; such a call is made twice a round, and the second one is timed


def interleaved(calls: Mapping[K, Call], threads: int, seconds: float) -> dict[K, np.ndarray]:
    """Milliseconds of each call in each round.

    A short call finds its own weights and maps in the caches, as it does where it runs alone.

    Args:
        calls: by name.
        threads: of torch. One is timed by its own CPU time, which other processes do not count
            in; several by the clock, which wants an idle machine.
        seconds: how long all rounds together may take, within ``LEAST`` and ``MOST`` rounds.
    """
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    for call in calls.values():  # plans, caches and memory pools are made
        call()
    once = {name: _taken(call, time.perf_counter) for name, call in calls.items()}
    whole = sum(taken * (2 if taken < SHORT else 1) for taken in once.values())
    rounds = int(min(max(seconds / max(whole, 1e-6), LEAST), MOST))
    times = {name: np.zeros(rounds) for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if once[name] < SHORT:
                call()
            times[name][turn] = 1e3 * _taken(call, clock)
    return times


def _taken(call: Call, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def quartiles(values: np.ndarray) -> list[float]:
    """Lower quartile, median and upper quartile, four digits each."""
    return [float(f"{value:.4g}") for value in np.quantile(values, [0.25, 0.5, 0.75])]
