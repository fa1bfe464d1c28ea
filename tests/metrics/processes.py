"""Two processes that a metric gathers over, by gloo; the file is also the program of each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def answers(process: Callable[[int], Any], folder: Path) -> list[Any]:
    """What a function of a test file, given its rank, answers in each of two fresh processes.

    Not in forks: a fork of a process with threads may wait for ever for what one of them held.
    """
    command = [sys.executable, __file__, process.__module__, process.__name__, str(folder)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([*command, str(rank)], env=environment) for rank in (0, 1)]
    try:
        assert [each.wait(timeout=300) for each in running] == [0, 0]
    finally:
        for each in running:
            each.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def main(module: str, function: str, folder: Path, rank: int) -> None:
    store, limit = f"file://{folder}/rendezvous", timedelta(minutes=5)
    torch.distributed.init_process_group(
        "gloo", init_method=store, timeout=limit, rank=rank, world_size=2
    )
    torch.save(getattr(import_module(module), function)(rank), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    os._exit(0)  # gloo's threads may abort a process that is leaving
