"""What a table will take, before its first run: hours of known seconds, and who is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.sweep import timing
from bnnbench.sweep.hours import estimate, line

from .test_terminal import App, terminal

# Seconds of a training step: 200 steps are two hours.
LONG: dict[str, Any] = {"APP_STEPS": "36"}
FULL = ("table=small", "scale=full", "trainer.max_epochs=2")  # six runs of 200 steps
STARTED = 6


def lines(app: App, *words: str, **extra: str) -> list[str]:
    """What the command says of the hours, and that its runs ended all the same."""
    run = app.run(*words, **extra)
    assert run.returncode == 0, run.stderr
    return [line for line in run.stderr.splitlines() if "estimate" in line or "start?" in line]


def head(*runs: list[tuple[int, int]], device: str = "cpu: a chip, 2 threads") -> dict[str, Any]:
    labels = ("resnet18 at 32 px", "resnet18 at 32 px", "resnet20 at 32 px")
    kinds = [{"label": label, "alike": label} for label in labels]
    threads = 1 if device.startswith("cuda") else 2
    return {"device": device, "threads": threads, "kinds": kinds, "runs": runs, "left_out": []}


def times(*step_s: float) -> list[dict[str, Any]]:
    return [{"kind": kind, "step_s": s} for kind, s in enumerate(step_s)]


RUNS = ([(0, 3600)], [(1, 3600)], [(2, 7200)])


def test_hours_are_steps_times_seconds() -> None:
    hours = estimate([head(*RUNS), *times(1.0, 3.0, 0.5)], None)
    assert hours.runs == [3600.0, 3 * 3600.0, 3600.0]
    assert hours.networks == {"resnet18 at 32 px": 4 * 3600.0, "resnet20 at 32 px": 3600.0}
    assert hours.wall(2, 0) == (3 * 3600.0, 3 * 3600.0)  # the short ones in turn, beside the long
    assert hours.wall(3, 0, cores=2) == (5 * 3600.0, 5 * 3600.0)  # of two threads each
    assert line(hours, 2, 0) == (
        "estimated: 10 core-hours on a chip for 3 runs, about 3.0 h with 2 side by side; of "
        "training steps alone, not compiled: reading images and evaluations come on top; from up "
        "to 5 timed steps each of 2 networks in 3 of 3 methods (resnet18 at 32 px 8 h, resnet20 "
        "at 32 px 2 h)"
    )


@pytest.mark.parametrize(
    ("workers", "gpus", "words"),
    [
        (1, 1, "about 5.0 h one after the other;"),
        (3, 1, "about 3.0 h to 5.0 h with 3 side by side on one GPU;"),
        (3, 3, "about 3.0 h with 3 side by side;"),
        (8, 8, "about 3.0 h with 3 side by side;"),
    ],
)
def test_runs_share_a_gpu_at_no_cost_or_in_turn(workers: int, gpus: int, words: str) -> None:
    hours = estimate([head(*RUNS, device="cuda: NVIDIA H200"), *times(1.0, 3.0, 0.5)], None)
    assert line(hours, workers, gpus).startswith("estimated: 5 GPU-hours on NVIDIA H200 for 3 ru")
    assert words in line(hours, workers, gpus)


def test_a_method_that_was_not_timed_is_taken_for_its_network() -> None:
    hours = estimate([head(*RUNS), *times(2.0)[:1], {"kind": 2, "step_s": 1.0}], None)
    assert hours.runs == [7200.0, 7200.0, 7200.0]
    assert hours.timed == (2, 2)


def test_what_was_not_timed_is_named() -> None:
    told = [head(*RUNS), *times(1.0), {"kind": 2, "why": "RuntimeError: no room"}]
    hours = estimate(told, None)
    assert hours.runs == [3600.0, 3600.0]
    missing = "; not in it: 1 run (resnet20 at 32 px: RuntimeError: no room)"
    assert line(hours, 1, 0).endswith(missing)
    left = head() | {"runs": [[(0, 1)]], "left_out": ["dataset=own: unknown"] * 2}
    words = line(estimate([left, *times(1.0)], None), 1, 0)
    assert words.endswith("; not in it: 2 runs (dataset=own: unknown)")


@pytest.mark.parametrize(
    ("told", "why", "reason"),
    [
        ([], "it took more than 60 s", "more than 60 s"),
        ([], None, "nothing was timed"),
        ([head(*RUNS)], "it took more than 60 s", "more than 60 s"),
        ([head(*RUNS), {"kind": 0, "why": "ValueError: odd"}], None, "ValueError: odd"),
        ([head(*RUNS), {"kind": 0, "step_s": float("nan")}], None, "nothing was timed"),
    ],
)
def test_no_estimate_says_why(told: list[dict[str, Any]], why: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        estimate(told, why)


def test_lines_that_a_stopped_process_had_written_count(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import time; print('{\"a\": 1}', flush=True); print('{\"b', end='', flush=True); "
    monkeypatch.setattr(timing, "MOST_S", 2.0)
    monkeypatch.setattr(timing, "COMMAND", [sys.executable, "-c", code + "time.sleep(60)"])
    assert timing.timed([], None) == ([{"a": 1}], "it took more than 2 s")


def test_a_table_says_what_it_will_take_and_a_pipe_is_not_asked(app: App) -> None:
    (told,) = lines(app, *FULL, **LONG)
    assert told.startswith("estimated: 12 core-hours on a processor for 6 runs, about 6.0 h with 2")
    assert len(app.executed()) == STARTED
    assert lines(app, *FULL, **LONG) == []  # all are finished


def test_who_gets_no_estimate(app: App) -> None:
    assert lines(app, "table=small", "scale=demo", **LONG) == []
    assert lines(app, "-m", "quantizer=adabin", **LONG) == []
    assert lines(app, "table=small", "scale=full", "trainer.max_epochs=0", **LONG) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("dies", "no estimate of its hours: RuntimeError: no room"),
        ("no number", "no estimate of its hours: ValueError: could not convert"),
        ("hangs", "estimated: 0.028 core-hours on a processor for 1 run, about 2 min;"),
    ],
)
def test_a_table_does_not_depend_on_its_estimate(app: App, how: str, said: str) -> None:
    (told,) = lines(app, *FULL, APP_STEPS=how)
    assert told.startswith(said)
    if how == "hangs":
        networks = ("3 runs (resnet18", "2 runs (resnet20")
        left = [f"{name} at 32 px: it took more than 4 s)" for name in networks]
        assert told.endswith(f"; not in it: {', '.join(left)}")
    assert len(app.executed()) == STARTED


@pytest.mark.parametrize(
    ("typed", "code", "started"),
    [(b"n\n", 130, 0), (b"\x04", 130, 0), (b"\n", 0, STARTED), (b"maybe\ny\n", 0, STARTED)],
)
def test_somebody_at_a_terminal_is_asked(app: App, typed: bytes, code: int, started: int) -> None:
    with terminal(app, *FULL, **LONG) as screen:
        screen.wait_for(lambda: "start? [Y/n] " in screen.text)
        os.write(screen.leader, typed)
        assert screen.process.wait(120) == code, screen.text
    assert len(app.executed()) == started
    said = "nothing was started; the same command with < /dev/null starts without a question"
    assert (said in screen.text) is (code == 130)
    assert ("y or n? " in screen.text) is typed.startswith(b"maybe")
    assert list(app.logs.glob("sweeps/*/sweep.json")) == [] or code == 0


def test_a_short_table_and_half_a_terminal_are_not_asked(app: App) -> None:
    with terminal(app, *FULL, APP_STEPS="1") as screen:  # seven minutes a run
        assert screen.process.wait(120) == 0
    assert "estimated: 0.33 core-hours" in screen.text
    assert "start?" not in screen.text
    leader, follower = os.openpty()  # stdin is a terminal, stdout is none
    run = subprocess.run(
        app.command(*FULL, "force=true"),
        env=app.environment(**LONG),
        stdin=follower,
        capture_output=True,
        text=True,
        timeout=120,
    )
    os.close(leader)
    os.close(follower)
    assert run.returncode == 0
    assert "estimated: 12 core-hours" in run.stderr
    assert "start?" not in run.stderr


def test_a_process_that_is_not_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timing, "COMMAND", [sys.executable, str(tmp_path / "none.py")])
    told, why = timing.timed([], None)
    assert told == []
    assert "No such file" in str(why)


def test_seconds_of_a_real_step(tmp_path: Path, compose: Callable[..., DictConfig]) -> None:
    """The process that times them, on the smallest network: 16 epochs of 22 batches."""
    cfg = compose("quantizer=xnor", "backbone=resnet20", "trainer.accelerator=cpu")
    counted = compose("quantizer=xnor", "backbone=resnet20", "trainer.max_epochs=0")
    told, why = timing.timed([(cfg, 1437, tmp_path), (counted, None, tmp_path)], 1)
    assert why is None
    assert (told[0]["runs"], told[0]["threads"]) == ([[[0, 352]], []], 1)
    assert told[0]["device"].startswith("cpu: ")
    assert 1e-3 < told[1]["step_s"] < 10
    hours = estimate(told, why)
    assert hours.runs == [352 * told[1]["step_s"], 0]
    assert list(hours.networks) == ["resnet20 at 8 px"]
