"""Train one run, or a sweep that ends in its comparison table.

    bnnbench train quantizer=adabin backbone=resnet20 dataset=cifar10
    bnnbench train -m quantizer=adabin,xnor,birealnet backbone=resnet18
    bnnbench train table=unified_cifar10 scale=demo

A finished run is reused, an interrupted one resumes from its last epoch; ``force=true`` runs again.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from bnnbench import resolvers
from bnnbench.checks.deleted import check_deleted
from bnnbench.checks.errors import is_told, messages
from bnnbench.checks.keys import check_added, check_added_to_hydra
from bnnbench.checks.places import check_room, check_temporary
from bnnbench.commands.help import of_evaluate, of_train
from bnnbench.paths import conf_dir
from bnnbench.records.launches import to_train
from bnnbench.records.provenance import task_overrides
from bnnbench.records.ranks import rank
from bnnbench.records.store import read_result, score_of
from bnnbench.records.words import metric
from bnnbench.runs import signals
from bnnbench.runs.forced import finish_cut_exchange
from bnnbench.runs.longer import advice
from bnnbench.runs.reuse import Run, needs_replay, reused, settle
from bnnbench.sweep.cli import (
    check_groups,
    check_launcher,
    check_scale,
    check_sweeper,
    ensure_multirun,
    left_to_cells,
    short_errors,
    valid_keys,
    with_folder,
    with_home,
)
from bnnbench.sweep.devices import claim_gpu

EMPTY = (".hydra", "train.log", "error.txt")  # what a folder holds in which nothing came of it

resolvers.register()


@hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """One run; returns the headline of its last epoch, nan where it only counted."""
    resolvers.register()  # a launcher's worker unpickles this function without running the module
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:  # a job, checked by its sweep, which tells its failure
        return _run(cfg, in_sweep=True)
    with messages(cfg):
        check_added(cfg, task_overrides())
        check_added_to_hydra(hydra_cfg, hydra_cfg.overrides.hydra)  # pyright: ignore
        return _run(cfg, in_sweep=False)


def _run(cfg: DictConfig, in_sweep: bool) -> float:
    first = run = Run(cfg, Path(cfg.paths.output_dir))
    if cfg.train and not in_sweep:
        if not cfg.force:
            finish_cut_exchange(first.folder, first.fingerprint)
        run = settle(first)
    if run.folder != first.folder:
        _say(f"the data are not those that {first.name} was trained on: this is {run.name}")
    if (result := _finished(run)) is not None:
        return _reuse(run, result)
    with _no_empty_folder(run, in_sweep):
        return _started(run, in_sweep) if cfg.train else _execute(run, in_sweep)


def _started(run: Run, in_sweep: bool) -> float:
    """Train, unless another process has done so meanwhile."""
    signals.at(f"while it waited for {run.folder}")
    replaces = bool(run.cfg.force)
    with to_train(
        run.folder, run.fingerprint, lambda: _finished(run) is not None, replaces
    ) as is_ours:
        if is_ours:
            return _execute(run, in_sweep)
        result = _finished(run)
        assert result is not None
        return _reuse(run, result)


def _finished(run: Run) -> dict[str, Any] | None:
    """The result that stands for the run; None where it has to be run."""
    result = None if run.cfg.force or not run.cfg.train else read_result(run.folder)
    return result if result is not None and result["fingerprint"] == run.fingerprint else None


@contextmanager
def _no_empty_folder(run: Run, in_sweep: bool) -> Iterator[None]:
    """What was refused, and has said why, leaves no folder; that of a sweep's run tells why."""
    try:
        yield
    except Exception as error:
        left = set(run.folder.glob("*"))
        told = is_told(error) and rank() == 0 and not (in_sweep and run.cfg.train)
        if told and left and left <= {run.folder / name for name in EMPTY}:
            shutil.rmtree(run.folder)
        raise


def _execute(run: Run, in_sweep: bool) -> float:
    """Train or evaluate; a single training says last what came of it."""
    if not in_sweep:
        check_room(run.folder)
        check_temporary()
        if run.cfg.train and (line := advice(run)) is not None:
            _say(line)
    signals.at(f"while {run.name} was set up")
    claim_gpu()
    from bnnbench.runs.run import execute  # torch takes seconds: only once there is work

    score = execute(run.cfg, run.folder, quiet=in_sweep, typed=task_overrides())
    if not in_sweep and run.cfg.train:
        value = f"{metric(resolvers.headline(run.cfg))} {100 * score:.2f} % in the last epoch"
        what = "counted" if math.isnan(score) else value
        _say(f"{what}; {run.folder / 'result.json'}")
    return score


def _say(text: str) -> None:
    """Print once: every process of a distributed run comes here."""
    if rank() == 0:
        print(text)


def _reuse(run: Run, result: dict[str, Any]) -> float:
    """Show a finished run's result, also to a logger that has not seen it."""
    _say(f"{reused(result)}; {run.folder / 'result.json'}; force=true runs it again")
    if needs_replay(run):
        from bnnbench.runs.loggers import replay  # with torch

        replay(run.cfg, run.folder, result)
    return score_of(result)


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(of_train())
        return
    if sys.argv[1:] in (["train=false", "-h"], ["train=false", "--help"]):
        print(of_evaluate())
        return
    check_sweeper(sys.argv)
    check_groups(sys.argv, conf_dir())
    check_scale(sys.argv)
    check_launcher(sys.argv)
    sys.argv = ensure_multirun(with_folder(with_home(sys.argv)))
    with signals.ending(), valid_keys(), short_errors(), left_to_cells():
        check_deleted(sys.argv[1:])
        main()
