"""A planned sweep, carried out: preflight, manifest, launch, table, and how it ended."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import OmegaConf, open_dict

from bnnbench.checks.errors import full_error, message
from bnnbench.data.known import JOBS
from bnnbench.records.lock import holder
from bnnbench.records.screen import size
from bnnbench.records.store import DamagedResult, read_error, read_result, write_json
from bnnbench.runs import signals
from bnnbench.runs.forced import finish_cut_exchange
from bnnbench.runs.reuse import MARK, Run, needs_replay, reused
from bnnbench.sweep.devices import (
    check_processes,
    is_local,
    jobs_beside,
    jobs_together,
    share_out,
    threads,
)
from bnnbench.sweep.jobs import read_job
from bnnbench.sweep.labels import labels
from bnnbench.sweep.progress import Progress
from bnnbench.sweep.watched import Seen, Watched, reused_cell

from . import _hours
from ._launch import Launch, Launches
from ._plan import Planned, Sweep, clear_errors

ENVIRONMENT = "BNNBENCH_SWEEP"  # names the sweep to its jobs
# What the same command does next, by whether it forces.
_AGAIN = {
    False: "the same command runs only these again and resumes what was cut",
    True: "the same command runs all of them again and resumes what was cut; "
    "without force=true it runs only those that have no result",
}


@dataclass
class Outcome:
    """How the launch ended, beyond what the run folders say."""

    failed: list[Planned] = field(default_factory=list)
    stopped: str | None = None  # why the launcher gave up on the jobs that were left
    ended: signals.Ended | None = None
    not_renewed: list[Planned] = field(default_factory=list)  # forced, and still the old result


def run(sweep: Sweep, launcher: Callable[[], Launch]) -> int:
    """Run what is not finished, render the table, say what failed. Returns the exit code."""
    return concluded(sweep, carried_out(sweep, launcher))


def carried_out(sweep: Sweep, launcher: Callable[[], Launch], part: str = "") -> Outcome:
    """Run what is not finished; ``part`` says which part of it this is, where it is one."""
    for planned in sweep.runs:
        if not planned.cfg.get("force"):
            finish_cut_exchange(sweep.runs_dir / planned.cell.run, planned.cell.fingerprint)
    pending = sweep.pending()
    finished = [planned for planned in sweep.runs if planned not in pending]
    counts = f"{len(finished)} runs are finished, {len(pending)} to run"
    _say(f"sweep {sweep.name}{part and f', {part}'}: {counts}")
    for planned in sweep.runs:
        if mark := OmegaConf.select(planned.cfg, MARK):
            first = planned.cell.run.removesuffix(f"_data{mark}")
            _say(f"{first} was trained on other data: trained on these it is {planned.cell.run}")
    others = _tell_reused(sweep, finished)
    launch = _ready(sweep, pending, launcher) if pending else None
    _write_manifest(sweep)
    jobs = _free_first(sweep, pending)
    return _launched(sweep, jobs, others, launch) if launch else Outcome()


def concluded(sweep: Sweep, outcome: Outcome) -> int:
    """Render the table and say what failed. Returns the exit code."""
    if outcome.ended is None:
        signals.at(f"while the table of sweep {sweep.name} was rendered")
    try:
        # Somebody at the terminal waits for it; a machine that is shut down does not.
        if outcome.ended is None or outcome.ended.signum == signal.SIGINT:
            _show_table(sweep)
    finally:  # a table that cannot be rendered hides no failure
        code = _summary(sweep, outcome)
    if outcome.ended is not None:
        raise outcome.ended
    return code


def _free_first(sweep: Sweep, pending: list[Planned]) -> list[Planned]:
    """The runs that are to be trained, those last that another process trains now."""
    held = {p.cell.run: who for p in pending if (who := holder(sweep.runs_dir / p.cell.run))}
    for name, who in held.items():
        _say(f"{name} is held by {who}: its turn is last, and waits until that ends")
    return sorted(pending, key=lambda planned: planned.cell.run in held)


def _tell_reused(sweep: Sweep, finished: Sequence[Planned]) -> list[Seen]:
    """Name every number that this call does not measure, and give it to a logger that lacks it."""
    names, cells = _labels(sweep), []
    for planned in finished:
        folder = sweep.runs_dir / planned.cell.run
        try:
            result = read_result(folder)
        except DamagedResult as error:
            _say(str(error))
            continue
        if result is None:
            continue
        _say(f"reused: {planned.cell.run}: {reused(result)}")
        cells.append(reused_cell(names[planned.cell.run], result))
        if needs_replay(Run(planned.cfg, folder)):
            from bnnbench.runs.loggers import replay  # with torch

            with open_dict(planned.cfg):
                planned.cfg.paths.output_dir = str(folder)
                if planned.cfg.logger.get("wandb"):
                    planned.cfg.logger.wandb.group = sweep.name
            replay(planned.cfg, folder, result)
    return cells


def _labels(sweep: Sweep) -> dict[str, str]:
    """What the lines about a run call it, by its name."""
    told = labels([planned.cell for planned in sweep.runs], sweep.manifest["swept"])
    pairs = zip(sweep.runs, told, strict=True)
    return {planned.cell.run: label or planned.label for planned, label in pairs}


def _ready(sweep: Sweep, pending: list[Planned], launcher: Callable[[], Launch]) -> Launch:
    """The launcher. What can be known to fail fails here, not hours later in job after job."""
    from bnnbench.runs.preflight import preflight

    try:
        share_out(sweep.config, len(pending))
        launch = launcher()
        kinds = {planned.kind: planned.cfg for planned in pending}
        check_processes(kinds.values(), sweep.config.hydra.launcher)
        folders = [sweep.runs_dir / planned.cell.run for planned in pending]
        images = preflight(list(kinds.values()), folders, here=is_local(sweep.config))
        if any(cfg.logger.get("wandb") for cfg in kinds.values()):
            from bnnbench.runs.wandb import choose_mode

            choose_mode(sweep.runs_dir / "*")  # once: workers have our environment
    except Exception as error:
        raise CompactHydraException(message(error)) from error
    _hours.told(sweep, pending, dict(zip(kinds, images, strict=True)))
    return launch


def _write_manifest(sweep: Sweep) -> None:
    with clear_errors():
        try:
            write_json(sweep.folder / "sweep.json", sweep.manifest)
        except OSError as error:
            raise OSError(
                f"cannot write the sweep: {error}; choose a folder with paths.log_dir=<folder>"
            ) from error


def _launched(
    sweep: Sweep, pending: list[Planned], others: Sequence[Seen], launch: Launch
) -> Outcome:
    # Hydra's own overrides reach the jobs under every launcher, unlike our environment.
    beside = jobs_beside(sweep.config, len(pending))
    environment = {ENVIRONMENT: sweep.name, JOBS: beside} | threads(sweep.config, beside)
    for name, value in environment.items():
        sweep.config.hydra.overrides.hydra.append(f"++hydra.job.env_set.{name}='{value}'")
    names = _labels(sweep)
    watched = [Watched(names[p.cell.run], sweep.runs_dir / p.cell.run, _epochs(p)) for p in pending]
    work = {job: p.overrides for job, p in zip(watched, pending, strict=True)}
    launches = Launches(work, launch)
    survived = "joblib" in sweep.config.hydra.launcher._target_
    paint = "Basic" not in sweep.config.hydra.launcher._target_  # whose jobs print as they like
    outcome = Outcome()
    signals.at(f"in sweep {sweep.name}")
    try:
        # A handle of its own: jobs that run in this process redirect stderr to their logs.
        with (
            os.fdopen(os.dup(2), "w", errors="replace") as terminal,
            Progress(watched, terminal, others, jobs_together(sweep.config, len(pending)), paint),
        ):
            launches.despite_deaths() if survived else launches.once()
    except signals.Ended as ended:
        outcome.ended = ended
    except Exception as error:  # the cluster refused: show what there is
        message = str(error).strip().splitlines() or ["no message"]
        outcome.stopped = f"{type(error).__name__}: {message[0]}"
        if full_error():
            traceback.print_exc()
    jobs = list(zip(watched, pending, strict=True))
    outcome.failed = [p for job, p in jobs if job in launches.failed]
    outcome.not_renewed = [
        p for job, p in jobs if p.cfg.get("force") and not job.new("result.json")
    ]
    return outcome


def _epochs(planned: Planned) -> int | None:
    """How many epochs a run trains, None where its config does not say it at once."""
    epochs = planned.cfg.trainer.get("max_epochs")
    if OmegaConf.select(planned.cfg, "recipe.stages") or epochs is None or epochs < 0:
        return None
    return int(epochs)


def _show_table(sweep: Sweep) -> None:
    from bnnbench.report.efficiency import bench_of
    from bnnbench.report.render import render

    results, folder = Path(sweep.config.paths.results_dir), sweep.folder
    where = folder / "sweep.json", [sweep.runs_dir], folder, results / "published"
    with clear_errors():
        table = render(*where, bench=bench_of(results))
    if sys.stdout.isatty():
        from bnnbench.report.terminal import fitted

        print(f"\n{fitted(table, size(sys.stdout)[0])}")
    else:
        print(table.markdown())
    figures = sorted(file.name for file in sweep.folder.glob("*.png"))
    written = ", ".join(["table.md", "table.csv", "table.tex", "runs.csv", *figures])
    print(f"Written to {sweep.folder}: {written}", flush=True)
    chosen: Mapping[Any, Any] = sweep.config.get("logger") or {}
    if set(chosen) - {"csv"}:
        from bnnbench.sweep.summary import log_summary

        log_summary(sweep.config, sweep.name, table)


def _summary(sweep: Sweep, outcome: Outcome) -> int:
    """One line for each run that failed, whose folder has the traceback; one for all. The code."""
    states = {p.cell.run: sweep.state(p) for p in sweep.runs}
    bad = ("failed", "damaged")
    failed = [p for p in sweep.runs if p in outcome.failed or states[p.cell.run] in bad]
    missing = [
        p
        for p in sweep.runs
        if p not in failed and (p in outcome.not_renewed or states[p.cell.run] != "finished")
    ]
    for planned in failed:
        file = sweep.runs_dir / planned.cell.run / "error.txt"
        text = (read_error(file.parent) or "").strip() or "no error.txt"
        if states[planned.cell.run] == "damaged":
            file, text = file.with_name("result.json"), "its result is damaged"
        _say(f"failed: {planned.cell.run}: {text.splitlines()[-1]}\n        {file}")
        if full_error():
            _say(text)
    if outcome.stopped:
        _say(f"the launcher stopped: {outcome.stopped}")
    for planned in missing:
        if (job := read_job(sweep.runs_dir / planned.cell.run)) is not None:
            _say(f"no result: {planned.cell.run}: {job}\n           {job.stderr}")
    forced = any(planned.cfg.get("force") for planned in sweep.runs)
    left = f"{len(failed)} of {len(sweep.runs)} runs failed, {len(missing)} have no "
    left += "new result; " if forced else "result yet; "
    left += _AGAIN[forced]
    if outcome.ended is not None and "SlurmLauncher" in sweep.config.hydra.launcher._target_:
        left += f"; jobs stay in the queue, and report.py sweep={sweep.name} says where they are"
    if outcome.ended is not None:
        signals.tell(left)
    elif failed or missing:
        _say(left)
    return 1 if failed or missing else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
