"""Layers by shape: their rows, their sum, and the limit of a core."""

from __future__ import annotations

import pytest
import torch

from bnnbench.bench import layers
from bnnbench.bench.limits import LOOPS, limits
from bnnbench.runtime import kernel


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_row_a_layer_and_one_for_the_sum() -> None:
    shapes = {"two": ((1, 8, 5), (2, 16, 4))}
    (found,) = layers.measure([1], 0, 100.0, shapes)
    assert (found["set"], found["threads"]) == ("two", 1)
    first, second, total = found["rows"]
    assert [row["layer"] for row in found["rows"]] == ["8 x 5²", "16 x 4²", "sum"]
    for call in ("1 bit", "int8"):
        parts = [row["microseconds"][call] for row in (first, second, total)]
        assert max(parts[0][1], parts[1][1]) < parts[2][1]
    best = [total["microseconds"][way] for way in layers.FLOATS]
    assert best[0] == best[1]  # the better of each layer
    assert total["x float"][0] <= total["x float"][1] <= total["x float"][2]
    assert first["of the limit"][1] == pytest.approx(first["GMAC/s from codes"][1] / 100, rel=0.01)


def test_without_a_limit_there_is_no_share_of_it() -> None:
    (found,) = layers.measure([1], 0, 0.0, {"one": ((1, 8, 5),)})
    assert found["rows"][0]["of the limit"] is None


def test_the_limits_of_a_core() -> None:
    if kernel.active()[0] is None:
        pytest.skip(f"there is no kernel: {kernel.active()[1]}")
    found = limits()
    assert set(found) == set(LOOPS)
    assert found["look_ups"] > found["floats"] > 1
