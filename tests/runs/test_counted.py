"""Signs of life."""

from types import SimpleNamespace

import pytest

from bnnbench.runs import counted


def test_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(counted, "time", clock)
    items = list(range(1200))
    found = []
    for item in counted.counted(items, "composing", "cells"):
        found.append(item)
        clock.now += 0.004
    assert found == items
    assert capsys.readouterr().err.splitlines() == [
        "composing 750 of 1,200 cells",
    ]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted.counted([1, 2], "composing", "cells")) == [1, 2]
    assert capsys.readouterr().err == ""
