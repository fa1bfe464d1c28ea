"""Messages of other packages that say nothing to who trains here, each with its reason.

They are left out by their words alone: whatever else these packages say is shown. Warnings of this
package are a line each: where they stand in its code says nothing to who trains.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from pathlib import Path

# The beginning of a warning, as a regular expression, and why nobody has to act on it.
WARNINGS = {
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "Lightning's own call of torch",
    r"The number of training batches \(\d+\) is smaller than the logging interval": "a row is "
    "logged an epoch, whatever trainer.log_every_n_steps is",
    r"The '\w+' does not have many workers": "small sets lie on the device, and dataset.workers "
    "follows the cores where files are read",
    r"It is recommended to use `self\.log\(.*sync_dist=True\)` when logging on epoch level": "what "
    "is logged at an epoch's end is a metric that is reduced over the processes already",
    r"You are using `torch\.load` with `weights_only=False`": "checkpoints are read with their "
    "checksums, by code of this suite",
    r"Checkpoint directory .* exists and is not empty": "a run that goes on writes where it was",
    r"`torch\.jit\.script(_method)?` is (deprecated|not supported)": "of a network of timm's or "
    "torchvision's",
}
# The same of what is told by a logger, by its name.
LOGGED = {
    "torch.utils.cpp_extension": {
        r"No CUDA runtime is found, using CUDA_HOME": "a toolkit without a GPU is no mistake",
    },
}
# Lightning's tips and lists of devices are what its loggers say below a warning.
TALKATIVE = ("lightning.pytorch", "lightning.fabric")
_OWN = f"{Path(__file__).parents[1]}{os.sep}"
_formatted = warnings.formatwarning  # as it was


class Hushed(logging.Filter):
    """Drops records that begin with one of some patterns."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self.patterns = patterns

    def __eq__(self, other: object) -> bool:  # so that a logger takes it once
        return isinstance(other, Hushed) and self.patterns == other.patterns

    __hash__ = logging.Filter.__hash__

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(re.match(pattern, record.getMessage()) for pattern in self.patterns)


def hush() -> None:
    """Leave these messages out from now on, in this process; calling it again changes nothing."""
    warnings.formatwarning = _as_a_line
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for name, patterns in LOGGED.items():
        logging.getLogger(name).addFilter(Hushed(tuple(patterns)))
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _as_a_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    if filename.startswith(_OWN):
        return f"warning: {' '.join(str(message).split())}\n"
    return _formatted(message, category, filename, lineno, line)
