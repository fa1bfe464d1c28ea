"""Where a number came from: commit, machine, versions."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PEAKS = Path("/proc/self/clear_refs")  # 5 written there lets Linux forget the resident peak


def git_state() -> dict[str, Any]:
    """Commit and whether the tree differs from it; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None else bool(status)}


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of what decides a number."""
    import torch

    from bnnbench import __version__

    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("torchvision", "lightning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"bnnbench": __version__}


def device(used: Any) -> str:
    """The device of a run in words: processor and threads, or GPU."""
    import torch

    if used.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(used)}"
    threads = torch.get_num_threads()
    return f"{used.type}: {_processor()}, {threads} thread{'s' * (threads != 1)}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def restart_peak_memory() -> bool:
    """Forget the peaks of before, so that ``peak_memory_mb`` is of what follows; whether it can be.

    The resident memory of a process holds what it has not given back: what is no longer used is
    freed first. Systems other than Linux keep one peak for the whole process.
    """
    if _on_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library other than GNU's
        ctypes.CDLL(None).malloc_trim(0)
    try:
        PEAKS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory_mb() -> float:
    """Peak memory of this process in MB: of the GPU where one is used, else resident."""
    if _on_gpu():
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e6


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.is_initialized()


def task_overrides() -> list[str]:
    """What was typed for this run, sorted, without folders of this machine."""
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return sorted(override for override in typed if not override.startswith("paths."))
