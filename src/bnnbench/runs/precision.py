"""What ``trainer.precision=auto`` and ``fastest`` mean on the machine of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from bnnbench.checks.options import on_gpu

GAIN = 1.1  # of bfloat16, below which other numbers are not worth it
ROUNDS = 5
LAYERS = ((16, 32), (32, 16), (64, 8))  # channels and side of the maps: of ResNet-20
BATCH = 64


def resolved(options: Mapping[str, Any]) -> Any:
    """The precision of a trainer of these options.

    ``auto`` is bf16-mixed on GPUs that have it, else 32-true. ``fastest`` is the same on GPUs; on a
    CPU it is what convolutions are measured to be faster in, as having the instructions does not
    tell. Runs of several processes, which have to agree, stay at 32-true there.
    """
    typed = options["precision"]
    if typed not in ("auto", "fastest"):
        return typed
    if on_gpu(options):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    alone = options.get("devices") in (1, "1", "auto") and options.get("num_nodes", 1) == 1
    return "bf16-mixed" if typed == "fastest" and alone and gain() >= GAIN else "32-true"


@cache
def gain() -> float:
    """How many times as fast this CPU convolves in bfloat16 as in float32, both ways.

    The layers are 3x3 convolutions of a batch of images, under autocast, in channels-last; both
    precisions take turns, and of each the best turn counts.
    """
    layers = [_layer(*shape) for shape in LAYERS]
    seconds = {torch.bfloat16: float("inf"), torch.float32: float("inf")}
    for _ in range(ROUNDS + 1):  # the best of them is not the first, which builds kernels
        for dtype in seconds:
            seconds[dtype] = min(seconds[dtype], _turn(layers, dtype))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _layer(channels: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and weights that take no random numbers from the run."""
    shapes = (BATCH, channels, side, side), (channels, channels, 3, 3)
    images, weight = (torch.full(shape, 0.1) for shape in shapes)
    layout = torch.channels_last
    images, weight = (x.to(memory_format=layout) for x in (images, weight))
    return images.requires_grad_(), weight.requires_grad_()


def _turn(layers: list[tuple[torch.Tensor, torch.Tensor]], dtype: torch.dtype) -> float:
    """Seconds of forward and backward."""
    start = time.perf_counter()
    for images, weight in layers:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = nn.functional.conv2d(images, weight, padding=1)
        out.backward(torch.ones_like(out))
    return time.perf_counter() - start
