"""Which of the processes that train one run together this is, known before torch is loaded."""

import os

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, of Lightning, of srun


def rank() -> int:
    """This process's number among those of its run; 0 where it is alone."""
    found = (os.environ.get(name, "") for name in _VARIABLES)
    return next((int(text) for text in found if text.isdecimal()), 0)


def started_by_lightning() -> bool:
    """Whether this is a process that a run's first one has started, and ends with its own end."""
    return rank() > 0 and "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
