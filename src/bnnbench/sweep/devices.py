"""How many jobs run side by side, and which GPU each of them may see. Never imports torch."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import count
from multiprocessing import current_process
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bnnbench.cores import cores
from bnnbench.records.fingerprint import world_size
from bnnbench.records.gpus import visible_gpus

WORKERS = "BNNBENCH_WORKERS"  # environment: number of jobs side by side, instead of counting
ONE_PROCESS = ("joblib", "basic", "LocalLauncher")  # launchers that start one process a job
_claims: list[IO[str]] = []  # a lock lasts as long as its file is open: the life of the process


def workers(accelerator: str = "auto") -> int:
    """One job a GPU, or one a core where there is no GPU or `accelerator` is cpu."""
    if text := os.environ.get(WORKERS):
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{WORKERS}={text}: give a whole number from 1 on")
        return int(text)
    return (0 if accelerator == "cpu" else len(visible_gpus())) or cores()


def check_processes(cfgs: Iterable[DictConfig], launcher: Mapping[Any, Any]) -> None:
    """Refuse cells of several processes under a launcher that starts one process a job.

    Raises:
        ValueError: the message says how to train such a run.
    """
    target = str(launcher["_target_"])
    for cfg in cfgs:
        if "SlurmLauncher" in target:
            _check_tasks(cfg, launcher)
        elif (processes := world_size(cfg)) > 1 and any(name in target for name in ONE_PROCESS):
            raise ValueError(
                f"trainer.devices={cfg.trainer.devices} is {processes} processes a run, and this "
                "sweep has one a job, side by side: leave trainer=ddp and trainer.devices out, or "
                "train each on its own, without -m"
            )


def _check_tasks(cfg: DictConfig, launcher: Mapping[Any, Any]) -> None:
    """SLURM starts the processes of a run, as many as it is told, on nodes that it chooses."""
    if str(devices := cfg.trainer.get("devices", 1)) in ("-1", "auto"):
        raise ValueError(
            f"trainer.devices={devices} counts the devices of the machine that is asked, and a "
            "job's are another's: give their number, and hydra.launcher.tasks_per_node as well"
        )
    nodes = cfg.trainer.get("num_nodes", 1)
    processes = world_size(cfg) // nodes
    for key, wanted in (("nodes", nodes), ("tasks_per_node", processes)):
        if (found := launcher.get(key, 1)) != wanted:
            asked = "trainer.num_nodes" if key == "nodes" else "trainer.devices"
            raise ValueError(
                f"hydra.launcher.{key}={found} and {asked}={wanted}: a run has a process a device, "
                f"which SLURM starts; set hydra.launcher.{key}={wanted}"
            )


def share_out(config: DictConfig, jobs: int) -> None:
    """Set how many of a sweep's jobs run side by side where nobody has: see ``side_by_side``.

    It is left as it is where GPUs are shared out, or the number was typed.
    """
    launcher = config.hydra.launcher
    own = str(OmegaConf.to_container(launcher).get("n_jobs", "")).startswith("${workers:")  # pyright: ignore
    on_gpu = config.trainer.accelerator != "cpu" and visible_gpus()
    if own and not on_gpu and not os.environ.get(WORKERS):
        with open_dict(launcher):
            launcher.n_jobs = side_by_side(jobs, cores())


def side_by_side(jobs: int, cores: int) -> int:
    """How many runs of one thread, side by side, end a sweep of equally long ones first.

    One a core, but where that leaves cores idle in the end: three runs on two cores share them,
    and end after one and a half times what one takes, not after twice. At most half as many again
    as there are cores, as each takes its memory.
    """

    def end(workers: int) -> float:
        turns, rest = divmod(jobs, workers)
        return turns * workers / cores + (max(1.0, rest / cores) if rest else 0.0)

    return min(range(cores, max(cores, min(jobs, cores * 3 // 2)) + 1), key=end)


def jobs_together(config: DictConfig, jobs: int) -> int:
    """How many of a sweep's jobs run at the same time, wherever they do."""
    launcher = config.hydra.launcher
    if "LocalLauncher" in launcher._target_:
        return jobs  # submitit starts all of them
    return min(jobs, launcher.get("array_parallelism") or jobs_at_once(config))


def jobs_beside(config: DictConfig, jobs: int) -> int:
    """How many share a machine's cores: on a cluster each has its own."""
    slurm = "SlurmLauncher" in config.hydra.launcher._target_
    return 1 if slurm else jobs_together(config, jobs)


def threads(config: DictConfig, beside: int) -> dict[str, int]:
    """The environment that gives each process of submitit's its share of this machine's cores."""
    if "LocalLauncher" not in config.hydra.launcher._target_ or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": max(1, cores() // beside)}


def threads_each(config: DictConfig, beside: int) -> int | None:
    """Threads of a run on this machine, which joblib shares out as well; None: as torch has it."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    local = "LocalLauncher" in config.hydra.launcher._target_
    return max(1, cores() // (beside if local else jobs_at_once(config)))


def is_local(config: DictConfig) -> bool:
    """Whether the jobs run on this machine, not on a cluster's."""
    target = config.hydra.launcher._target_
    return any(name in target for name in ("joblib", "Basic", "LocalLauncher"))


def jobs_at_once(config: DictConfig) -> int:
    """How many jobs the launcher of a composed config runs side by side on this machine."""
    launcher = config.hydra.launcher
    jobs = launcher.get("n_jobs") or 1
    return jobs if jobs > 0 else cores()  # joblib's -1 is all cores


def claim_gpu() -> str | None:
    """Give this process of a sweep one GPU to itself; call it before CUDA is initialised.

    Only workers of the joblib launcher need it: a cluster's launcher assigns GPUs in the
    environment, and a single run may use them all. Returns the GPU, None where nothing was done.
    """
    if not in_joblib_worker():
        return None
    gpus = visible_gpus()
    if len(gpus) < 2:  # none, the only one, or claimed by this worker's previous job
        return None
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu = gpus[_claim_slot() % len(gpus)]
    return gpu


def in_joblib_worker() -> bool:
    """Whether this process is one of the joblib launcher's."""
    return current_process().name.startswith("LokyProcess")


def register_resolvers() -> None:
    """`${workers:<accelerator>}` in a config, for the joblib launcher's n_jobs."""
    OmegaConf.register_new_resolver("workers", workers, replace=True)


def _claim_slot() -> int:
    """The lowest number no living worker of this sweep holds (numbers of dead ones are free)."""
    import fcntl  # POSIX only, as are machines with several GPUs to share

    folder = Path(tempfile.gettempdir()) / f"bnnbench-gpus-{os.getuid()}-{os.getppid()}"
    folder.mkdir(exist_ok=True)
    for slot in count():
        file = (folder / str(slot)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _claims.append(file)
        return slot
    raise AssertionError("count() does not end")
