"""One run, from a composed config to ``result.json``."""

from __future__ import annotations

import gc
import logging
import math
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from bnnbench.checks.errors import is_told
from bnnbench.metrics import count_operations
from bnnbench.records.durable import sweep
from bnnbench.records.fallback import tidy
from bnnbench.records.ranks import rank
from bnnbench.records.store import DamagedResult, read_result, score_of, write_json
from bnnbench.runs import results, signals
from bnnbench.runs.allocator import keep_freed_memory
from bnnbench.runs.evaluation import evaluate, last_task
from bnnbench.runs.forced import finish_exchange, prepare, standing, workspace
from bnnbench.runs.hushed import hush
from bnnbench.runs.loggers import as_tags, opened, reached, tell
from bnnbench.runs.peers import write_reason
from bnnbench.runs.preflight import check_settings, check_stages
from bnnbench.runs.reuse import Run, check_owner, check_start, stamp_cache
from bnnbench.runs.run_log import About, outcome_of
from bnnbench.runs.stages import Stage, stages
from bnnbench.runs.training import Training, input_size, trained
from bnnbench.runs.twin import starts_from_twin, twin_for

log = logging.getLogger(__name__)


@contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Leave the traceback in ``error.txt`` when the block fails; a signal is no failure.

    Of several processes of a run the first that fails says why: the others fail by its end.
    """
    file = folder / "error.txt"
    file.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        signals.check()
        if rank() > 0 and not is_told(error):
            time.sleep(1.0)  # for the one whose end this may be
        write_reason(file, traceback.format_exc())
        raise


def execute(
    cfg: DictConfig,
    folder: Path,
    quiet: bool,
    typed: Sequence[str] = (),
    twin_of: str | None = None,
) -> float:
    """Train (or resume) the run of ``cfg`` in ``folder``; returns the last epoch's headline.

    ``trainer.max_epochs=0`` only counts operations and sizes, without data; it returns nan.
    ``typed`` are the overrides of the command line, which an evaluation compares with what its
    checkpoint says. ``twin_of`` names the run of the command line where this one is its twin.
    """
    keep_freed_memory()
    hush()
    gc.collect()  # a finished job's modules live on until collected
    with recorded_failure(folder):
        check_settings(cfg)
        check_start(cfg)
        if not cfg.train:
            return evaluate(cfg, folder, quiet, typed)
        if cfg.force:
            return _forced(cfg, folder, quiet)
        check_owner(run := Run(cfg, folder))
        return _finished(run, quiet, twin_of)


def _forced(cfg: DictConfig, folder: Path, quiet: bool) -> float:
    """Run beside what stands in ``folder``, which is replaced once the new result stands."""
    beside = deepcopy(cfg)
    beside.paths.output_dir = str(workspace(folder))
    run = Run(beside, workspace(folder))
    result = standing(run)
    if result is None:
        rank_zero_only(finish_exchange)(folder)  # of a run of another config
        rank_zero_only(prepare)(run)
        score = _finished(run, quiet)
    else:
        score = score_of(result)
    rank_zero_only(finish_exchange)(folder)
    return score


def _finished(run: Run, quiet: bool, twin_of: str | None = None) -> float:
    _sweep(run)
    return _count(run) if run.cfg.trainer.max_epochs == 0 else _train(run, quiet, twin_of)


@rank_zero_only
def _sweep(run: Run) -> None:
    """Delete what dead processes were writing here when they died."""
    folders = [run.folder, *run.folder.glob("stage*_*")]
    for folder in (*folders, *(each / "checkpoints" for each in folders)):
        sweep(folder)
    sweep(stamp_cache(run.cfg).parent)


def _train(run: Run, quiet: bool, twin_of: str | None) -> float:
    """All stages in turn; a finished one is not run again, a cut one goes on where it was."""
    planned = stages(run.cfg)
    started = starts_from_twin(run.cfg)
    if len(planned) > 1 or run.cfg.teacher.name != "none" or started or _resizes(planned):
        check_stages(run.cfg)
    twin = None
    if started:
        twin = twin_for(
            planned, run.cfg, lambda r: execute(r.cfg, r.folder, quiet, twin_of=run.name)
        )
    with opened(run.cfg, About(run.name, "train", as_tags(run.cfg.tags))) as loggers:
        records = trained(Training(run, planned, quiet, loggers, twin))
        # the run's own, not its last stage's
        whole = {"name": run.name, "fingerprint": run.fingerprint, "config": run.config}
        result = results.combined(records) | whole | _start(run.cfg, twin)
        if twin_of is not None:  # whose command this is
            result["twin_of"] = twin_of
        rank_zero_only(write_json)(run.folder / "result.json", result)
        tell(loggers, outcome_of(result, run.folder))
    reached(loggers, run.folder)
    for stage in planned:
        tidy(stage.folder)
    return score_of(result)


def _start(cfg: DictConfig, twin: Run | None) -> dict[str, str]:
    """The twin that a run, or the one that it goes on from, started from."""
    if twin is not None:
        return {"started_from": twin.name}
    if cfg.get("ckpt_path") is None or not cfg.recipe.get("start"):
        return {}
    folder = Path(cfg.ckpt_path).expanduser().absolute().parent.parent
    try:
        origin = read_result(folder) or {}
    except DamagedResult:  # which costs no finished run its result
        origin = {}
    return {"started_from": origin["started_from"]} if "started_from" in origin else {}


def _resizes(planned: Sequence[Stage]) -> bool:
    return any(stage.cfg.dataset.get("resize") for stage in planned)


def _count(run: Run) -> float:
    """A run of no epochs: operations and sizes only."""
    task = last_task(run.cfg)
    cost = count_operations(task.net, input_size(run.cfg)).as_dict()
    write_json(run.folder / "result.json", results.counted(run, task, cost))
    return math.nan
