"""Training steps of a sweep's cells, timed in a process of their own: this one loads no torch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

COMMAND = [sys.executable, "-m", "bnnbench.runs.step_time"]
MOST_S = 60.0  # seconds that all of it may take


def timed(
    cells: Sequence[tuple[DictConfig, int | None, Path]], threads: int | None
) -> tuple[list[dict[str, Any]], str | None]:
    """What ``runs.step_time`` has told of those runs until its time was over.

    Args:
        cells: configs, images that are trained on, and folders.
        threads: of one run; None as torch has it.

    Returns:
        Its lines, and what it ended of where it failed or was stopped.
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    pipe = subprocess.PIPE
    process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    why = None
    try:
        out, error = process.communicate(pickle.dumps(list(cells)), MOST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
        why = f"it took more than {MOST_S:.0f} s"
    finally:  # of a signal as well
        process.kill()
        process.wait()
    if why is None and process.returncode:
        last = error.decode(errors="replace").strip().splitlines()[-1:]
        why = last[0] if last else f"its process ended with exit code {process.returncode}"
    return [
        json.loads(line) for line in out.decode().splitlines(keepends=True) if _whole(line)
    ], why


def _whole(line: str) -> bool:
    return line.endswith("\n")
