"""The live table, as a function of what was seen."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bnnbench.records.position import Position
from bnnbench.sweep.live import LiveTable, fitting, shortened, summary
from bnnbench.sweep.watched import Seen

AT = Position(0, 12, 14, 22, running={"loss": 2.5})
CELLS = [
    Seen("adabin", "training", 12, Position(3, 12, 11, 22, epoch_s=4.0, left_s=125.0), "loss 2.31"),
    Seen("xnor", "resumed", 12, Position(8, 12, 0, 22, resumed=8, left_s=9.0), "test acc 97.2 %"),
    Seen("birealnet with a long name=0.001 s1", "evaluating", 12, Position(12, 12, 1, 2, True)),
    Seen("bnn", "starting", 12),
    Seen("dorefa", "waiting", 12),
    Seen("irnet", "finished", 12, None, "test acc 98.0 %", 48.0),
    Seen("fp32", "reused", 12, None, "test acc 99.0 %"),
    Seen("boom", "failed", 12, why="ValueError: the loss of epoch 3 is nan, which is no number"),
    Seen("名前", "training", None, AT, "loss 2.5"),
]


def shown(cells: list[Seen], width: int, height: int = 40, **options: Any) -> list[str]:
    options = {"color_system": None} | options
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, **options
    )
    console.print(LiveTable(cells, elapsed=151.0, left=400.0), end="")
    file: Any = console.file
    return file.getvalue().splitlines()


def test_at_a_usual_width() -> None:
    lines = [line.rstrip() for line in shown(CELLS[:2] + CELLS[4:8], 90)]
    assert [line.replace("━", "").replace("╸", "").split() for line in lines[1:-2]] == [
        ["cell", "state", "epoch", "metric", "left"],
        ["adabin", "training", "4/12", "loss", "2.31", "2:05"],
        ["xnor", "resumed", "9/12", "test", "acc", "97.2", "%", "0:09"],
        ["dorefa", "waiting", "\N{EN DASH}/12", "\N{EN DASH}", "\N{EN DASH}"],
        ["irnet", "finished", "12", "test", "acc", "98.0", "%"],
        ["fp32", "reused", "12", "test", "acc", "99.0", "%"],
        ["boom", "failed", "\N{EN DASH}/12", *["ValueError:", "the", "loss…", "no", "number"]],
    ]
    told = "3 of 6 done, 1 training, 1 resumed, 1 failed, 1 waiting; elapsed 2:31, left 6:40"
    assert shown(CELLS[:2] + CELLS[4:8], 100)[-1] == told


@pytest.mark.parametrize("number", range(1, 1 + len(CELLS)))
def test_no_line_is_wider_than_the_terminal(number: int) -> None:
    for width in range(40, 201):
        for cells in (CELLS[:number], CELLS[-number:]):
            lines = shown(cells, width)
            assert max(map(cell_len, lines)) <= width
            assert len(lines) <= number + 5  # each cell has one line


def test_a_narrow_one_keeps_name_state_and_what_fits() -> None:
    lines = shown(CELLS, 40)
    assert lines[2].split() == ["adabin", "training", "4/12", "2:05"]
    assert lines[4].startswith("birealnet")
    assert "evaluating" in lines[4]
    for width in (10, 20):
        assert max(map(cell_len, shown(CELLS, width))) <= max(width, 14)


@pytest.mark.parametrize("height", range(8, 61, 4))
def test_it_is_no_higher_than_the_terminal(height: int) -> None:
    many = list(itertools.islice(itertools.cycle(CELLS), 50))
    lines = shown(many, 100, height)
    assert len(lines) <= height
    assert ("more: " in "".join(lines)) == (height < 56)


def test_those_at_work_are_shown_first_in_the_order_of_the_sweep() -> None:
    cells = [Seen(f"done {n}", "finished") for n in range(9)]
    cells += [Seen("failed", "failed"), Seen("one", "training"), Seen("next", "waiting")]
    cells += [Seen(f"later {n}", "waiting") for n in range(9)]
    cells.append(Seen("two", "evaluating"))
    kept, hidden = fitting(cells, 5)
    assert [cell.label for cell in kept] == ["failed", "one", "next", "two"]
    assert len(kept) + len(hidden) == len(cells)
    assert fitting(cells, len(cells))[1] == []


def test_colours_go_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = "".join(shown(CELLS, 100, color_system="standard"))
    assert "\x1b[36mtraining" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in "".join(shown(CELLS, 100, color_system="standard"))


def test_the_summary_says_what_is_unknown() -> None:
    assert summary(CELLS[3:5], 0.0, None) == (
        "0 of 2 done, 1 starting, 1 waiting",
        "elapsed 0:00, left \N{EN DASH}",
    )


def test_names_are_shortened_within() -> None:
    assert shortened("quantizer lr=0.01", 10) == "quanti….01"
    for width in range(25):
        for text in ("quantizer lr=0.01", "名前の長い名前の長い", "a"):
            assert cell_len(shortened(text, width)) <= width
