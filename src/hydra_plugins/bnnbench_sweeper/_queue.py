"""Jobs handed over to submitit, whose executors know the cluster, and waited for.

Hydra's launcher waits for its jobs one after the other, gives up all of them with the first that
the cluster kills, and would hand over again what an earlier call has left in the queue.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from bnnbench.sweep.jobs import Submitted, in_queue, read_job, write_job
from bnnbench.sweep.watched import Watched

POLL = 1.0  # seconds between two looks for results
ASK = (2.0, 60.0)  # seconds between two questions to the queue, at the beginning and in the end


class Queue:
    """The queue of one of submitit's launchers.

    Args:
        launcher: Hydra's, set up.
        folder: where it writes, which has to be there.
    """

    def __init__(self, launcher: Any, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder
        self.kind: str = launcher._EXECUTOR

    def run(self, work: Mapping[Watched, list[str]]) -> list[Watched]:
        """Hand over each job's overrides, but for those that wait already, and wait for all.

        Returns:
            The jobs that failed.
        """
        waiting = (in_queue() or {}) if self.kind == "slurm" else {}
        known = {job: read_job(job.folder) for job in work}
        earlier = {job: told for job, told in known.items() if told and told.job in waiting}
        for job, told in earlier.items():
            _say(f"{job.folder.name} is in the queue already, {told}: waited for")
        fresh = [job for job in work if job not in earlier]
        made = self._handed_over(fresh, [work[job] for job in fresh]) if fresh else []
        try:
            self._wait([told.job for told in earlier.values()], made)
        except BaseException:
            if self.kind == "local":  # nobody else would end these
                for each in made:
                    each.cancel()
            raise
        return [job for job in work if job.new("error.txt")]

    def _wait(self, earlier: Sequence[str], made: Sequence[Any]) -> None:
        """Until each job has left a result, or is no longer in the queue."""
        ends = dict.fromkeys(earlier, _never)
        for each in made:  # submitit would ask sacct, which not every cluster has
            slurm = self.kind == "slurm"
            ends[str(each.job_id)] = each.paths.result_pickle.exists if slurm else each.done
        start = asked = time.monotonic()
        while ends:
            time.sleep(POLL)
            ends = {job: ended for job, ended in ends.items() if not ended()}
            now = time.monotonic()
            if self.kind == "slurm" and now - asked >= min(ASK[1], max(ASK[0], (now - start) / 10)):
                asked = now
                if (waiting := in_queue()) is not None:
                    ends = {job: ended for job, ended in ends.items() if job in waiting}

    def _handed_over(
        self, jobs: Sequence[Watched], overrides: Sequence[list[str]]
    ) -> Sequence[Any]:
        """submitit's jobs, written down in the runs' folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = Singleton.get_state()
        arguments = [
            (list(words), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, words in enumerate(overrides)
        ]
        submitted = self._executor().map_array(self.launcher, *zip(*arguments, strict=True))
        for job, made in zip(jobs, submitted, strict=True):
            paths = str(made.paths.stdout), str(made.paths.stderr)
            write_job(job.folder, Submitted(self.kind, str(made.job_id), *paths))
        _say(_told(self.kind, [str(made.job_id) for made in submitted], self.folder))
        return submitted

    def _executor(self) -> Any:
        """submitit's executor with the launcher's options, as Hydra's launcher makes it."""
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        options = dict(self.launcher.params)
        folder, retries = options.pop("submitit_folder"), options.pop("max_num_timeout", None)
        more = {} if retries is None else {f"{self.kind}_max_num_timeout": retries}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.kind, **more)
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        named = {k if k in shared else f"{self.kind}_{k}": v for k, v in options.items()}
        executor.update_parameters(**named)
        return executor


def _never() -> bool:
    return False


def _told(kind: str, jobs: Sequence[str], folder: Path) -> str:
    which = jobs[0] if len(jobs) == 1 else f"{jobs[0]} to {jobs[-1]}"
    again = "; they stay in the queue without this process" if kind == "slurm" else ""
    return f"{len(jobs)} jobs handed over, {which}{again}: {folder}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
