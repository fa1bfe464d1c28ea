"""Mean and standard deviation of training images, measured once and kept in the data folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnbench.data import kept

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
        found = json.loads(_file(data_dir, key).read_text())
        kept = {name: [float(value) for value in found[name]] for name in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    values = [*kept["mean"], *kept["std"]]
    whole = len(kept["mean"]) == len(kept["std"]) == 3 and all(0 <= value <= 1 for value in values)
    return kept if whole and min(kept["std"]) > 0 else None


def keep(data_dir: Path, key: str, found: Mapping[str, Sequence[float]]) -> None:
    """Write what was measured, in one step; where that cannot be, it is measured again."""
    file = _file(data_dir, key)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, prefix=".part-", delete=False) as part:
            json.dump(dict(found), part)
        os.replace(part.name, file)


def _file(data_dir: Path, key: str) -> Path:
    return kept.place(data_dir) / f"normalisation-{key}.json"


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
