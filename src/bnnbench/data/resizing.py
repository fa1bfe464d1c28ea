"""Progressive resizing: training images start small and end at full size, by the epoch.

As in fast.ai's entry to DAWNBench; evaluation is at full size throughout. Which size an epoch has
follows from its number alone, so that a run that goes on has the sizes of an uncut one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 8  # pixels: networks take no less
ADVICE = (
    "a list of [part of the side, until this part of the epochs], the latter rising and all "
    "between 0 and 1, such as [[0.5,0.3],[0.75,0.6]], or []"
)


def is_schedule(value: Any) -> bool:
    """Whether a value is what ``ADVICE`` says."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    pairs = [pair for pair in value if isinstance(pair, Sequence) and len(pair) == 2]
    numbers = [part for pair in pairs for part in pair]
    fit = all(type(part) in (int, float) and 0 < part < 1 for part in numbers)
    ends = [pair[1] for pair in pairs] if fit else []
    return len(pairs) == len(value) and fit and ends == sorted(set(ends))


def sides(schedule: Sequence[Sequence[float]], size: int) -> list[int]:
    """Pixels of the image's side in each part of the run, the whole ``size`` last."""
    least = min(size, LEAST)
    return [*(max(round(part * size), least) for part, _ in schedule), size]


def side_at(schedule: Sequence[Sequence[float]], size: int, epoch: int, epochs: int) -> int:
    """Pixels of the image's side in an epoch, from 0, of a run of ``epochs``; the last is whole."""
    passed = sum(epoch >= min(round(until * epochs), epochs - 1) for _, until in schedule)
    return sides(schedule, size)[passed]


def resized(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) of floats as squares of ``side`` pixels, in their memory format."""
    import torch
    from torch.nn import functional as F

    if images.shape[2:] == (side, side):
        return images
    nhwc = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=layout)
