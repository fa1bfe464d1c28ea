"""Turns, rounds and the clock of a bench."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from bnnbench.bench import timing
from bnnbench.bench.timing import LEAST, interleaved, quartiles


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def busy(seconds: float) -> None:
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def test_contenders_take_turns() -> None:
    seen: list[str] = []
    calls = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    times = interleaved(calls, 1, 0)
    assert {name: len(found) for name, found in times.items()} == {"a": LEAST, "b": LEAST}
    assert seen[4:] == ["a", "a", "b", "b"] * LEAST  # after two calls each that are not counted


def test_long_calls_are_made_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SHORT", 0)
    seen: list[str] = []
    interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 1, 0)
    assert seen[4:] == ["a", "b"] * LEAST


def test_one_thread_is_timed_by_what_it_computed_and_several_by_the_clock() -> None:
    calls = {"busy": lambda: busy(0.004), "asleep": lambda: time.sleep(0.004)}
    alone = interleaved(calls, 1, 0)
    assert 4 <= np.median(alone["busy"]) < 8
    assert np.median(alone["asleep"]) < 2
    assert torch.get_num_threads() == 1
    together = interleaved(calls, 2, 0)
    assert np.median(together["asleep"]) >= 4
    assert torch.get_num_threads() == 2


def test_more_time_is_more_rounds_up_to_a_most() -> None:
    assert len(interleaved({"a": lambda: None}, 1, 10)["a"]) == timing.MOST
    count = len(interleaved({"a": lambda: time.sleep(0.01)}, 2, 0.2)["a"])
    assert LEAST <= count <= 11


def test_quartiles() -> None:
    assert quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == [2.0, 3.0, 4.0]
    assert quartiles(np.full(3, 1 / 3)) == [0.3333] * 3
