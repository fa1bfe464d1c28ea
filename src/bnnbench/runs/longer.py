"""Whether a finished run of the same config, but shorter, could go on instead of a new one.

Imports lightly: it is asked before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from bnnbench.records.fingerprint import digest
from bnnbench.records.store import DamagedResult, last_weights, read_result
from bnnbench.runs.reuse import Run

DIGITS = 8  # of the fingerprint, at the end of a name


def advice(run: Run) -> str | None:
    """How the longest such run would go on, in a line; None where there is none."""
    if run.cfg.get("ckpt_path") is not None or last_weights(run.folder).exists():
        return None
    found = max(_shorter(run), default=None)
    if found is None:
        return None
    epochs, folder = found
    return (
        f"the same run of {epochs} epochs has finished; this is a new one. To go on from that one "
        f"instead add ckpt_path={last_weights(folder)}"
    )


def _shorter(run: Run) -> Iterator[tuple[int, Path]]:
    """Epochs and folders of the finished runs that differ from ``run`` in their length alone."""
    own = _but_length(run.config)
    for folder in Path(run.cfg.paths.runs_dir).glob(f"{escape(run.name[:-DIGITS])}{'?' * DIGITS}"):
        try:
            result = read_result(folder)
        except DamagedResult:
            continue
        if result is None or result["ended"] or result.get("stages"):
            continue
        shorter = 0 < result["epochs"] < (run.cfg.trainer.max_epochs or 0)
        if shorter and last_weights(folder).exists() and _but_length(result["config"]) == own:
            yield result["epochs"], folder


def _but_length(config: Mapping[str, Any]) -> str:
    """A hash of all that identifies a run but its number of epochs."""
    return digest({**config, "trainer": {**config["trainer"], "max_epochs": None}})
