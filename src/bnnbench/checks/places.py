"""Whether this machine has what a run needs: folders, room, devices. Imports lightly."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from bnnbench.cores import cores
from bnnbench.records.fingerprint import world_size
from bnnbench.records.gpus import visible_gpus

FREE_BYTES = 200e6  # checkpoints and logs of a run
TEMPORARY_BYTES = 20e6  # what workers, compilers and half-written files need
_ADVICE = "set paths.log_dir=<folder>"


def check_writable(folder: Path) -> None:
    """Make a folder and write into it. Raises OSError, whose message says what to set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error}): {_ADVICE}") from error


def check_room(folder: Path) -> None:
    """Refuse a disk without room for a run's checkpoints. Raises OSError."""
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise OSError(f"{folder} has {free / 1e6:.0f} MB left: {_ADVICE}")


def check_temporary() -> None:
    """Refuse a folder for temporary files that is missing, read-only or full. Raises OSError."""
    named = next((name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), None)
    place = Path(os.environ[named] if named else tempfile.gettempdir())
    told = f"{named}={place}" if named else f"{place}, the folder for temporary files,"
    advice = "set TMPDIR=<folder> in the environment"
    try:
        _probe(place)
    except OSError as error:
        raise OSError(f"{told} cannot be written ({error}): {advice}") from error
    free = shutil.disk_usage(place).free
    if free < TEMPORARY_BYTES:
        raise OSError(f"{told} has {free / 1e6:.0f} MB left: {advice}")


def check_devices(cfg: DictConfig) -> None:
    """Refuse devices that this machine does not have. Raises ValueError."""
    devices, kind = cfg.trainer.get("devices", 1), cfg.trainer.get("accelerator", "auto")
    gpus = 0 if kind == "cpu" else len(visible_gpus())
    if not gpus and kind in ("gpu", "cuda", "mps") and not _is_there(kind):
        raise ValueError(
            f"trainer.accelerator={kind}: torch sees no such device here (CUDA_VISIBLE_DEVICES may "
            "hide it); give cpu or auto"
        )
    there = gpus or cores()
    wanted = world_size(cfg) // cfg.trainer.get("num_nodes", 1)
    if kind in ("auto", "cpu", "gpu", "cuda") and wanted > there:
        name = "GPUs" if gpus else "CPU cores"
        raise ValueError(
            f"trainer.devices={devices}: there are {there} {name} here; give at most as many"
        )


def _is_there(kind: str) -> bool:
    """Asks torch, which knows other vendors' devices too, and which takes seconds."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return {"cuda": cuda, "mps": mps, "gpu": cuda or mps}[kind]


def _probe(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable"):
        pass
