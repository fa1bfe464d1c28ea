"""``hparams_search=<name>``: rounds of trials on held-out data, which end in their tables.

A round is as many trials as the launcher runs side by side; each is planned, launched and reused
as a cell of any sweep. What the next round tries follows from the results of those before.
"""

import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from bnnbench.paths import program
from bnnbench.records.store import DamagedResult, read_result, score_of
from bnnbench.report.markup import MISSING, Table
from bnnbench.sweep.devices import jobs_at_once
from bnnbench.sweep.expand import bare, distinct
from bnnbench.sweep.manifest import manifest, search_name, telling
from bnnbench.sweep.search import (
    Dimension,
    Trial,
    Values,
    best_of,
    check_installed,
    proposed,
    read_trials,
    write_trials,
)

from ._core import Outcome, carried_out, concluded
from ._launch import Launch
from ._plan import Planned, Sweep, clear_errors, compose_cells, splitter

GROUP = "hparams_search"
HELD_OUT = "dataset.val_fraction"
KEYS = ("name", "trials", "seed", "at_once", "params")


@dataclass(frozen=True)
class Search:
    """What the command line and the option of the group say, together.

    Attributes:
        fixed: what all trials have, as it is typed.
        space: what is searched; a value on the command line takes its key out.
    """

    name: str
    trials: int
    at_once: int
    seed: int
    fixed: Values
    space: list[Dimension]


def run(
    config: DictConfig,
    arguments: Sequence[str],
    loader: ConfigLoader,
    launcher: Callable[[], Launch],
) -> int:
    """Search, render the tables, and say how the best is trained. Returns the exit code."""
    with clear_errors():
        check_installed()
        search = read_line(config, arguments, loader)
        folder = Path(config.paths.sweeps_dir) / search.name
        forced = search.fixed.get("force", "").lower() == "true"
        waiting = [] if forced else read_trials(folder / "trials.json", search.space)
    tried: list[Values] = []
    trials: list[Planned] = []
    outcome = Outcome()
    while (outcome.ended, outcome.stopped) == (None, None):
        known = [Trial(v, _score(config, p)) for v, p in zip(tried, trials, strict=True)]
        left = min(search.at_once, search.trials - len(tried))
        if not (values := waiting or _next(search, known, left)):
            break
        waiting = []
        with clear_errors():
            planned = _planned(config, loader, search, values)
            tried, trials = [*tried, *values], [*trials, *planned]
            write_trials(folder / "trials.json", tried)
        of_all = manifest(search.name, [each.cell for each in _once(trials)])
        sweep = Sweep(config, _once(planned), of_all)
        first = len(tried) - len(values)
        part = f"trials {', '.join(map(str, range(first, len(tried))))}"
        with _hushed(config) if first else nullcontext():
            done = carried_out(sweep, launcher, part)
        outcome.failed += done.failed
        outcome.not_renewed += done.not_renewed
        outcome.ended, outcome.stopped = done.ended, done.stopped
    of_all = manifest(search.name, [each.cell for each in _once(trials)])
    code = concluded(Sweep(config, _once(trials), of_all), outcome)
    scores = [Trial(v, _score(config, p)) for v, p in zip(tried, trials, strict=True)]
    _tell(search, scores, trials, folder)
    return code


@contextmanager
def _hushed(config: DictConfig) -> Iterator[None]:
    """Without what the launcher says of each launch: the first round has said it."""
    log = logging.getLogger(config.hydra.launcher._target_.rpartition(".")[0].rpartition(".")[0])
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _next(search: Search, known: Sequence[Trial], count: int) -> list[Values]:
    return proposed(search.space, known, count, search.seed) if count > 0 else []


def read_line(config: DictConfig, arguments: Sequence[str], loader: ConfigLoader) -> Search:
    """What is searched. Raises ValueError for what is no search."""
    node: Any = OmegaConf.to_container(config[GROUP], resolve=True)
    if unknown := sorted(set(node) - set(KEYS)):
        raise ValueError(f"{GROUP}={node['name']}: no such key {unknown}; there are {list(KEYS)}")
    for key, least in (("trials", 1), ("seed", 0)):
        if type(node.get(key)) is not int or node[key] < least:
            raise ValueError(f"{GROUP}.{key}={node.get(key)}: give a whole number from {least} on")
    if config.table.name != "none":
        raise ValueError(f"table={config.table.name}: a search has trials, not a table's rows")
    parser = OverridesParser.create(config_loader=loader)
    typed = parser.parse_overrides([w for w in arguments if not _of_search(w)])
    taken = {bare(each.get_key_element()) for each in typed}
    stated = [f"{key}={text}" for key, text in (node.get("params") or {}).items()]
    own = [o for o in parser.parse_overrides(stated) if bare(o.get_key_element()) not in taken]
    space = [dimension(o) for o in [*own, *typed] if o.is_sweep_override()]
    fixed = splitter(loader)([str(o.input_line) for o in typed if not o.is_sweep_override()])[0]
    if not space:
        raise ValueError(
            f"{GROUP}={node['name']}: nothing is left to search: type it as "
            "<key>='interval(<low>, <high>)', or leave values out that are typed"
        )
    name = search_name(node["name"], telling([fixed])[0], [*space, node["seed"]])
    at_once = node.get("at_once") or jobs_at_once(config)
    return Search(name, node["trials"], at_once, node["seed"], fixed, space)


def _of_search(word: str) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    return key in (GROUP, "scale") or key.startswith(f"{GROUP}.")


def dimension(override: Override) -> Dimension:
    """What Hydra's ``interval``, ``range`` or ``choice`` of a key searches."""
    key, value = override.get_key_element(), override.value()
    if bare(key) == "seed":
        raise ValueError(
            f"{override.input_line}: a search has one seed; train the best with several"
        )
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        return Dimension(key, value.start, value.end, log=log)
    if isinstance(value, RangeSweep):
        values = [*value.range()]
        return Dimension(key, values[0], values[-1], value.step, log) if values else _empty(key)
    return Dimension(key, words=tuple(override.sweep_string_iterator()))


def _empty(key: str) -> Dimension:
    raise ValueError(f"{key}: its range holds no value")


def _planned(
    config: DictConfig, loader: ConfigLoader, search: Search, values: Sequence[Values]
) -> list[Planned]:
    """The runs of some trials, in their order; two of the same values are one run."""
    cells = [search.fixed | each for each in values]
    planned = compose_cells(config, loader, cells)
    for each in planned:
        _check(each.cfg)
    by_cell = {frozenset(c.items()): p for c, p in zip(distinct(cells), planned, strict=True)}
    return [by_cell[frozenset(cell.items())] for cell in cells]


def _check(cfg: DictConfig) -> None:
    """Refuse a trial that would be judged by test data, or by nothing."""
    if not cfg.dataset.get("val_fraction"):
        raise ValueError(
            f"{GROUP}: nothing is held out, and on test images nothing may be chosen: add "
            f"{HELD_OUT}=0.1"
        )
    if cfg.trainer.max_epochs == 0:
        raise ValueError(f"{GROUP}: trainer.max_epochs=0 trains nothing that could be compared")


def _once(planned: Sequence[Planned]) -> list[Planned]:
    return list(dict.fromkeys(planned))


def _score(config: DictConfig, planned: Planned) -> float | None:
    """The headline of a finished run; None where there is none."""
    try:
        result = read_result(Path(config.paths.runs_dir) / planned.cell.run)
    except DamagedResult:
        return None
    finished = result is not None and result["fingerprint"] == planned.cell.fingerprint
    return score_of(result) if result is not None and finished else None


def _tell(
    search: Search, trials: Sequence[Trial], planned: Sequence[Planned], folder: Path
) -> None:
    """Print the trials as a table, the best marked, and the command that trains it on all data."""
    if not trials:
        return
    best = best_of(trials)
    keys = [each.key for each in search.space]
    rows = []
    for number, (trial, run) in enumerate(zip(trials, planned, strict=True)):
        score = MISSING if trial.score is None else f"{100 * trial.score:.2f}"
        marked = f"{number} (best)" if trial is best else str(number)
        rows.append([marked, *(trial.values[key] for key in keys), score, run.cell.run])
    headline = f"{planned[0].cell.headline} %"
    table = Table(f"Trials of {search.name}", ["trial", *keys, headline, "run"], rows)
    (folder / "trials.md").write_text(table.markdown(), encoding="utf-8")
    (folder / "trials.csv").write_text(table.csv(), encoding="utf-8")
    print(table.markdown())
    print(f"Written to {folder}: trials.md, trials.csv")
    if best is None:
        print("no trial has a score", file=sys.stderr)
        return
    print(f"The best, trained on the whole training set:\n{command_of(search.fixed, best)}")


def command_of(fixed: Values, best: Trial) -> str:
    """What is typed to train a trial's setting with nothing held out."""
    kept = {k: v for k, v in fixed.items() if bare(k) not in (HELD_OUT, "force")}
    words = [f"{key}={value}" for key, value in (kept | best.values | {HELD_OUT: "0"}).items()]
    return f"{program()} {shlex.join(words)}"
