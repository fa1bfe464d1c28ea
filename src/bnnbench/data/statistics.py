"""Mean and standard deviation of training images, measured once and kept in the data folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnbench.data import kept
from bnnbench.data.spec import CHANNELS

SAMPLE = 2000  # images that are looked at, of a set that has more
FORM = 1  # version of what is measured: raise it where that changes
LEAST_STD = 1 / 255  # of a channel that says nothing

Statistics = dict[str, list[float]]  # mean and std, a number a channel, of pixels in [0, 1]


def sample(images: int) -> Tensor:
    """Sorted numbers of at most ``SAMPLE`` images, the same for every run; int64."""
    # numpy guarantees this generator's stream
    order = np.random.RandomState(0).permutation(images)
    return torch.from_numpy(order[:SAMPLE]).sort().values


def of_batches(batches: Iterable[Tensor]) -> Statistics:
    """Mean and standard deviation of all pixels of each channel, to four decimals.

    Args:
        batches: images (B, C, H, W) of pixels scaled to [0, 1].
    """
    total = squares = torch.zeros(())
    count = 0
    for images in batches:
        pixels = images.double().transpose(0, 1).flatten(1)
        total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
        count += pixels.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_STD)
    # decoders differ in a bit of a pixel: no machine has numbers of its own
    return {"mean": _rounded(mean), "std": _rounded(std)}


def key_of(**told: Any) -> str:
    """A name for what the statistics of one set, seen in one way, are kept under."""
    text = json.dumps({"form": FORM, "sample": SAMPLE, **told}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(data_dir: Path, key: str) -> Statistics | None:
    """What was measured before; None where nothing was, or the file is damaged."""
    try:
        told = json.loads(_file(data_dir, key).read_text(encoding="utf-8"))
        found = {name: [float(value) for value in told[name]] for name in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    values = [*found["mean"], *found["std"]]
    whole = len(found["mean"]) == len(found["std"]) == CHANNELS
    return found if whole and all(0 <= x <= 1 for x in values) and min(found["std"]) > 0 else None


def keep(data_dir: Path, key: str, found: Mapping[str, Sequence[float]]) -> None:
    """Write what was measured; where that cannot be, it is measured again."""
    kept.write_new(_file(data_dir, key), json.dumps(dict(found)))


def _file(data_dir: Path, key: str) -> Path:
    return kept.place(data_dir) / f"normalisation-{key}.json"


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
