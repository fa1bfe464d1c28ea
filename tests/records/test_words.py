"""Times and metrics in words."""

from __future__ import annotations

import math

import pytest

from bnnbench.records.words import about, clock, score, so_far


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (math.nan, "\N{EN DASH}"),
        (-1, "0:00"),
        (4.6, "0:05"),
        (59.7, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (86399, "23:59:59"),
        (86400 * 2 + 3 * 3600 + 240, "2d 03:04"),
    ],
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (80, "80 s"), (170, "3 min"), (5000, "83 min"), (9000, "2.5 h")],
)
def test_about(seconds: float, text: str) -> None:
    assert about(seconds) == f"about {text}"
    assert about(86400 * 3) == "about 3.0 days"


def test_metrics() -> None:
    assert score({"train/acc": 0.1, "test/acc": 0.5112}) == "test acc 51.1 %"
    assert score({"val/map": 0.5}) == "val mAP 50.0 %"
    assert score({"test/map": None}) == score({}) == ""
    assert so_far({"acc": 0.25, "loss": 1.23456}) == ["loss 1.235", "acc 25.0 %"]
    assert so_far({}) == []
