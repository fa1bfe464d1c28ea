"""Which GPUs this process may use, without importing torch."""

import os
import shutil
import subprocess
from functools import cache


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(index) for index in range(_installed_gpus())]
    # CUDA stops at the first invalid entry, so -1 hides all that follow.
    names = [name.strip() for name in listed.split(",")]
    stop = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:stop]


@cache
def _installed_gpus() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listing.splitlines())
