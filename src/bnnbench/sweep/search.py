"""A search of settings: what is tried next, and the record that a cut search goes on from.

The truth about a trial is its run's ``result.json``; here stands only which values it had. Optuna
(arXiv 1907.10902) is asked anew for every round, with all that is known and a seed that follows
from it, so that a search goes on as if it had never been cut. Hydra's own plugin for Optuna is not
used: it wants a version below 3, whose storage fails with the SQLAlchemy of today.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnbench.records.store import write_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, str]  # dotted keys and what is typed for them
DIGITS = 3  # significant ones of what is tried: more would say nothing and be typed


@dataclass(frozen=True)
class Dimension:
    """A key that is searched: between two numbers, or among words.

    Attributes:
        key: of the config, dotted.
        low, high: the ends, both included; None for words.
        step: between two values, which are whole where it and low are; None for any.
        log: whether factors count, not differences.
        words: the choices, as they are typed.
    """

    key: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.words:
            return
        low, high = float(self.low or 0), float(self.high or 0)
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{self.key}: give a smaller number first, not {low:g} to {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"{self.key}: tag(log, ...) counts factors: begin above 0")
        if self.log and self.step not in (None, 1):
            raise ValueError(f"{self.key}: tag(log, ...) goes with an interval, or steps of 1")

    def distribution(self) -> BaseDistribution:
        """As Optuna takes it."""
        from optuna import distributions as of

        if self.words:
            return of.CategoricalDistribution(self.words)
        assert self.low is not None
        assert self.high is not None
        if self._is_whole:
            assert self.step is not None
            return of.IntDistribution(int(self.low), int(self.high), self.log, int(self.step))
        return of.FloatDistribution(self.low, self.high, self.log, self.step)

    def typed(self, value: Any) -> str:
        """A value as it stands on a command line."""
        if self.words or isinstance(value, int):
            return str(value)
        assert self.low is not None
        assert self.high is not None
        if self.step is not None:  # exactly, since Optuna takes no value between two steps
            steps = round((value - self.low) / self.step)
            return repr(float(f"{self.low + steps * self.step:.12g}"))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def read(self, text: str) -> Any:
        """What Optuna calls a typed value."""
        if self.words:
            return text
        return int(text) if self._is_whole else float(text)

    @property
    def _is_whole(self) -> bool:
        ends = (self.low, self.step)
        return all(end is not None and float(end).is_integer() for end in ends)


@dataclass
class Trial:
    """One setting: its values, and what came of it; no score where it failed or has not ended."""

    values: Values
    score: float | None = None


def check_installed() -> None:
    """Raise ValueError, which says what to install, where there is no Optuna, or an old one."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError("hparams_search needs Optuna: pip install 'bnnbench[optuna]'") from error
    if int(optuna.__version__.split(".")[0]) < 4:
        raise ValueError(
            f"hparams_search needs Optuna 4 or later, not {optuna.__version__}: "
            "pip install 'bnnbench[optuna]'"
        )


def proposed(
    space: Sequence[Dimension], known: Sequence[Trial], count: int, seed: int
) -> list[Values]:
    """The values of the next ``count`` trials, after those that are known."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    own = {each.key: each.distribution() for each in space}
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(known), constant_liar=True, n_startup_trials=_at_random(space)
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in known:
        values = {each.key: each.read(trial.values[each.key]) for each in space}
        failed = trial.score is None or not math.isfinite(trial.score)
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state, params=values, distributions=own, value=None if failed else trial.score
            )
        )
    asked = [study.ask(own) for _ in range(count)]
    return [{each.key: each.typed(trial.params[each.key]) for each in space} for trial in asked]


def _at_random(space: Sequence[Dimension]) -> int:
    """Trials before the first that learns of others."""
    return max(5, 2 * len(space))


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of those with the highest score; None where none has one."""
    scored = [t for t in trials if t.score is not None and math.isfinite(t.score)]
    return max(scored, key=lambda trial: trial.score or 0.0, default=None)


def read_trials(file: Path, space: Sequence[Dimension]) -> list[Values]:
    """The values of the trials of an earlier call. Raises ValueError where they are unreadable."""
    if not file.exists():
        return []
    keys = {each.key for each in space}
    try:
        trials = json.loads(file.read_text(encoding="utf-8"))["trials"]
        if any(set(trial) != keys for trial in trials):
            raise ValueError("its trials have other keys")
        return [{key: str(value) for key, value in trial.items()} for trial in trials]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error}); delete the file") from error


def write_trials(file: Path, trials: Sequence[Mapping[str, str]]) -> None:
    """Remember what is tried, before it is."""
    write_json(file, {"trials": [dict(values) for values in trials]})
