"""Searches of settings: what is tried, what is refused, and a search as a user meets it."""

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from bnnbench.sweep.search import Dimension, Trial, best_of, proposed, read_trials, write_trials

App = Any  # the fixture's class stands in conftest.py, which is not to be imported
pytest.importorskip("optuna", minversion="4", reason="needs pip install bnnbench[optuna]")

RATE = Dimension("recipe.lr", 1e-4, 1.0, log=True)
EPOCHS = Dimension("trainer.max_epochs", 2, 8, step=2)
METHOD = Dimension("quantizer", words=("adabin", "xnor"))
SPACE = [RATE, EPOCHS, METHOD]
SEARCH = ("hparams_search=rate", "quantizer=xnor", "dataset.val_fraction=0.2")
BASIC = "hydra/launcher=basic"  # starts fastest, where the launcher does not matter


@pytest.mark.parametrize(
    ("ends", "values"),
    [
        ((0.5, 2.5, 1.0), ("0.5", "1.5", "2.5")),
        ((1.0, 1.5, 0.125), ("1.0", "1.125", "1.25", "1.375", "1.5")),
        ((0.8, 0.9875, 0.0625), ("0.8", "0.8625", "0.925", "0.9875")),
        ((1, 7, 3), ("1", "4", "7")),
    ],
)
def test_a_range_with_steps_is_tried_at_its_steps_alone(
    ends: tuple[float, float, float], values: tuple[str, ...]
) -> None:
    """Also in the rounds after the first, which know what was tried."""
    low, high, step = ends
    space = [Dimension("recipe.lr", low, high, step=step)]
    known: list[Trial] = []
    for _ in range(4):
        found = proposed(space, known, 4, seed=0)
        assert {each["recipe.lr"] for each in found} <= set(values)
        known += [Trial(each, score=float(each["recipe.lr"])) for each in found]
    assert len({trial.values["recipe.lr"] for trial in known}) == len(values)


def test_values_lie_where_they_may() -> None:
    known: list[Trial] = []
    for _ in range(6):
        known += [Trial(values, 0.5) for values in proposed(SPACE, known, 5, seed=0)]
    for trial in known:
        assert 1e-4 <= float(trial.values["recipe.lr"]) <= 1
        assert trial.values["trainer.max_epochs"] in ("2", "4", "6", "8")
        assert trial.values["quantizer"] in ("adabin", "xnor")
    assert {trial.values["trainer.max_epochs"] for trial in known} == {"2", "4", "6", "8"}
    rates = [math.log10(float(trial.values["recipe.lr"])) for trial in known]
    assert sum(rate < -2 for rate in rates) > 8  # factors count: half of them below the middle


def test_a_search_learns_from_what_it_knows() -> None:
    """A peak at 0.01: the last ten of forty lie closer to it than the first ten."""
    known: list[Trial] = []
    distances: list[float] = []
    for _ in range(40):
        (values,) = proposed([RATE], known, 1, seed=0)
        distances.append(abs(math.log10(float(values["recipe.lr"])) + 2))
        known.append(Trial(values, 1 - distances[-1] / 4))
    assert sum(distances[-10:]) < 0.5 * sum(distances[:10])
    best = best_of(known)
    assert best is not None
    assert float(best.values["recipe.lr"]) == pytest.approx(0.01, rel=0.3)


def test_what_is_next_follows_from_what_is_known(tmp_path: Path) -> None:
    """Also where the search was cut and its trials read again."""
    first = proposed(SPACE, [], 6, seed=3)
    write_trials(tmp_path / "trials.json", first)
    again = read_trials(tmp_path / "trials.json", SPACE)
    assert again == first
    scores = [0.1, 0.7, None, 0.3, 0.9, math.nan]  # a failed one, and one that is undefined
    known = [Trial(values, score) for values, score in zip(first, scores, strict=True)]
    later = proposed(SPACE, known, 2, seed=3)
    assert proposed(SPACE, known, 2, seed=3) == later
    assert proposed(SPACE, [], 6, seed=4) != first
    assert best_of(known) is known[4]
    assert best_of(known[2:3]) is None


@pytest.mark.parametrize("text", ["{", '{"trials": [{"seed": "1"}]}', '{"trials": 3}', "[]"])
def test_damaged_trials_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "trials.json").write_text(text)
    with pytest.raises(ValueError, match=r"trials\.json: damaged .*delete the file"):
        read_trials(tmp_path / "trials.json", SPACE)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({"low": 1, "high": 1}, "give a smaller number first, not 1 to 1"),
        ({"low": 2, "high": 1}, "give a smaller number first"),
        ({"low": 0, "high": math.inf}, "give a smaller number first"),
        ({"low": 0, "high": 1, "log": True}, "begin above 0"),
        ({"low": 1, "high": 9, "step": 2, "log": True}, "steps of 1"),
    ],
)
def test_a_space_without_sense_is_refused(ends: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dimension("recipe.lr", **ends)


def trials(app: App) -> list[dict[str, str]]:
    (file,) = app.logs.glob("sweeps/search_rate_*/trials.json")
    return json.loads(file.read_text())["trials"]


def test_a_search_ends_in_tables_and_goes_on(app: App) -> None:
    first = app.run(*SEARCH)
    assert first.returncode == 0, first.stderr
    rows = [line.split("|")[1:-1] for line in first.stdout.splitlines() if line.startswith("|")]
    states, listed = rows[:4], rows[6:]  # the stand-in's table, then the trials below their header
    assert [row[-1].strip() for row in states] == ["finished"] * 4
    values = [float(trial["recipe.lr"]) for trial in trials(app)]
    assert [float(row[1]) for row in listed] == values
    scores = [1 - abs(math.log10(value) + 2) / 4 for value in values]
    assert [float(row[2]) for row in listed] == pytest.approx([100 * s for s in scores], abs=0.01)
    marked = [number for number, row in enumerate(listed) if "(best)" in row[0]]
    assert marked == [scores.index(max(scores))]
    assert len(app.executed()) == 4
    assert len(re.findall(r", trials \d", first.stderr)) == 2  # rounds
    assert len(re.findall("Joblib.Parallel", first.stdout + first.stderr)) == 1
    command = shlex.split(first.stdout.splitlines()[-1])
    assert command[-2:] == [f"recipe.lr={values[marked[0]]}", "dataset.val_fraction=0"]
    assert "hparams_search" not in " ".join(command)

    more = app.run(*SEARCH, "hparams_search.trials=6", BNNBENCH_WORKERS="3")
    assert more.returncode == 0, more.stderr
    assert len(app.executed()) == 6  # the first four are reused
    assert [float(trial["recipe.lr"]) for trial in trials(app)][:4] == values
    assert app.run(*SEARCH).returncode == 0
    assert len(app.executed()) == 6

    best = app.run(*command[2:])  # without python and its script
    assert best.returncode == 0, best.stderr
    assert len(app.executed()) == 7


def test_a_cut_search_tries_what_it_would_have(app: App) -> None:
    whole = app.run(*SEARCH, BASIC)
    tried = trials(app)
    (file,) = app.logs.glob("sweeps/search_rate_*/trials.json")
    file.write_text(json.dumps({"trials": tried[:2]}))
    for result in app.results()[:2]:
        result.unlink()
    again = app.run(*SEARCH, BASIC)
    assert trials(app) == tried
    assert again.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]


def test_a_failed_trial_stops_no_other(app: App) -> None:
    done = app.run(*SEARCH[:1], "quantizer=boom,xnor", SEARCH[2], BASIC, "hparams_search.trials=6")
    assert done.returncode == 1
    assert "runs failed" in done.stderr
    methods = {trial["quantizer"] for trial in trials(app)}
    assert methods == {"boom", "xnor"}
    assert re.search(r"^\|\s+\d \(best\) \|.*xnor", done.stdout, re.M)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("hparams_search=rate", "nothing is held out, .* add dataset.val_fraction=0.1"),
        (f"{' '.join(SEARCH)} recipe.lr=0.1", "nothing is left to search"),
        (f"{' '.join(SEARCH)} table=small", "table=small: a search has trials"),
        (f"{' '.join(SEARCH)} seed=0,1", "seed=0,1: a search has one seed"),
        (f"{' '.join(SEARCH)} hparams_search.trials=0", "give a whole number from 1 on"),
        (f"{' '.join(SEARCH)} +hparams_search.trails=9", r"no such key \['trails'\]"),
        (f"{' '.join(SEARCH)} trainer.max_epochs=0", "trains nothing"),
        (f"{' '.join(SEARCH)} recipe.lr=interval(1,0.1)", "give a smaller number first"),
        (f"{' '.join(SEARCH)} recipe.lrr=interval(0,1)", "Did you mean 'lr'?"),
        (f"{' '.join(SEARCH)} recipe.lr=range(3,1)", "holds no value"),
    ],
)
def test_what_is_no_search_is_refused_before_a_run(app: App, words: str, told: str) -> None:
    done = app.run(*words.split(), BASIC)
    assert done.returncode == 1
    assert re.search(told, done.stderr), done.stderr
    assert app.executed() == []
    assert not list(app.logs.glob("sweeps/*"))


@pytest.mark.parametrize("version", ["2.10.1", None])
def test_without_optuna_a_search_says_what_to_install(
    app: App, tmp_path: Path, version: str | None
) -> None:
    package = tmp_path / "elsewhere" / "optuna"
    package.mkdir(parents=True)
    text = "raise ImportError" if version is None else f"__version__ = '{version}'"
    (package / "__init__.py").write_text(text)
    done = app.run(*SEARCH, PYTHONPATH=f"{package.parent}:{Path(__file__).parents[2] / 'src'}")
    assert done.returncode == 1
    assert "pip install 'bnnbench[optuna]'" in done.stderr
