"""The line that a run says at its start: what it trains, on what, for how long, and where to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from bnnbench.data.base import ImageData
from bnnbench.records.fingerprint import choice
from bnnbench.records.words import about
from bnnbench.runs.ending import planned_epochs
from bnnbench.runs.reuse import Run
from bnnbench.runs.stages import Stage

MOST = 20  # results that are looked at for a measured time, the newest first


def later_epochs(stages: Sequence[Stage]) -> int | None:
    """Epochs of stages that follow; None where one of them is limited by steps."""
    planned = [planned_epochs(stage.cfg) for stage in stages]
    return None if None in planned else sum(filter(None, planned))


def beginning(stage: Stage, whole: Run, data: ImageData, finished: int, device: str) -> str:
    """One line; ``finished``: epochs that were trained before, ``device``: in a result's words."""
    cfg = stage.cfg
    method = f"{choice(cfg, 'backbone')} {choice(cfg, 'quantizer')}"
    rest = [f"loss {choice(cfg, 'loss')}", f"recipe {choice(cfg, 'recipe')}", f"seed {cfg.seed}"]
    if stage.name:
        rest.insert(0, f"stage {stage.name}")
    verb = "training" if finished == 0 else "resuming"
    what = (
        f"{verb} {method} ({', '.join(rest)}) on {cfg.dataset.name}, {data.train_images:,} images"
    )
    return f"{what}: {_length(stage, whole, finished, device)}; in {whole.folder}"


def _length(stage: Stage, whole: Run, finished: int, device: str) -> str:
    planned = planned_epochs(stage.cfg)
    if planned is None:
        steps = stage.cfg.recipe.get("steps") or stage.cfg.trainer.get("max_steps")
        return f"{steps:,} steps" if steps and steps > 0 else "no end in epochs or steps"
    left = max(0, planned - finished)
    length = f"{left} of {planned} epochs are left" if finished else f"{planned} epochs"
    found = known_epoch(stage, whole, device)
    if planned == 1:
        length = "1 epoch"
    return length if found is None else f"{length}, {about(left * found[0])} as in {found[1]}"


def known_epoch(stage: Stage, whole: Run, device: str) -> tuple[float, str] | None:
    """Seconds of an epoch, and the finished run that they were measured in; None without one.

    That run differs in no more than its seed, recipe and number of epochs, and had such a device.
    """
    folder = Path(stage.cfg.paths.runs_dir)
    alike = re.sub(r"_s\d+_[0-9a-f]{8}(_.*)?$", "", whole.name)
    files = [file for file in folder.glob(f"{alike}_s*/result.json") if file.parent != whole.folder]
    wanted = _kind(stage.run.config)
    for file in sorted(files, key=_written, reverse=True)[:MOST]:
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            for each in result.get("stages") or [result]:
                same = result.get("device") == device and _kind(each["config"]) == wanted
                if same and each["epochs"] and each["time"]:
                    return each["time"]["wall_s"] / each["epochs"], file.parent.name
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # it says no time: others may
    return None


def _kind(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's config the time of its epochs follows from."""
    kept = {k: v for k, v in deepcopy(dict(config)).items() if k not in ("seed", "recipe")}
    for group, keys in (("dataset", ("seed",)), ("trainer", ("max_epochs",))):
        _drop(kept.get(group), keys)
    return kept


def _drop(node: Any, keys: Iterable[str]) -> None:
    for key in keys:
        if isinstance(node, dict):
            node.pop(key, None)


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
