"""The default sweeper: finished cells are left out, failures are isolated, a table is the result.

It schedules nothing: Hydra expands and composes, the chosen launcher runs the jobs.
"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bnnbench.runs import signals

if TYPE_CHECKING:
    from ._launch import Launch


class BnnbenchSweeper(Sweeper):
    """`hydra/sweeper=bnnbench`: a plain `-m` line or `table=<name> scale=<name>` as one table."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task_function, self.master = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Plan, launch what is not finished, render; leave with exit code 1 if a run failed."""
        from . import _core, _plan, _search  # only a sweep pays for it, not every start

        signals.at("while the sweep was planned")
        if OmegaConf.select(self.master, "hparams_search.name") not in (None, "none"):
            loader = self.context.config_loader
            sys.exit(_search.run(self.master, arguments, loader, self._launcher))
        sweep = _plan.plan(self.master, arguments, self.context.config_loader)
        signals.at(f"before the first run of sweep {sweep.name}")
        if code := _core.run(sweep, self._launcher):
            sys.exit(code)

    def _launcher(self) -> "Launch":
        from ._job import Job, start_tracker
        from ._queue import Queue

        target = self.master.hydra.launcher._target_
        queued = "submitit" in target
        # Jobs that run side by side have a log each; the basic launcher's may be debugged.
        log = queued or "joblib" in target
        if "joblib" in target:
            start_tracker()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context,
            task_function=Job(self.task_function, log),
            config=self.master,
        )
        if queued:
            return Queue(launcher, Path(self.master.hydra.sweep.dir))
        return partial(launcher.launch, initial_job_idx=0)
