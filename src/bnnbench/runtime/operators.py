"""The packed convolution as an operator of torch, so that ``torch.compile`` keeps it whole.

Operators take tensors and numbers: layers and epilogues are named by handles.
"""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_HANDLES = itertools.count(1)
_MODULES: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Handled(nn.Module):
    """A module that operators find by its ``handle``; copies have handles of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._handle()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._handle()

    def _handle(self) -> None:
        self.handle = next(_HANDLES)
        _MODULES[self.handle] = self


@torch.library.custom_op("bnnbench::packed_conv2d", mutates_args=())
def packed_conv2d(
    x: Tensor, layer: int, epilogue: int, add: Tensor | None, factor: Tensor | None = None
) -> Tensor:
    """The output of a layer and its epilogue (0: none), (N, O, H', W') in channels-last order."""
    y, _ = _MODULES[layer].fused(x, epilogue=_MODULES.get(epilogue), add=add, factor=factor)
    return y


@packed_conv2d.register_fake
def _(
    x: Tensor, layer: int, epilogue: int, add: Tensor | None, factor: Tensor | None = None
) -> Tensor:
    shape = _MODULES[layer].output_shape(x.shape)
    return torch.empty(
        shape, dtype=torch.float32, device=x.device, memory_format=torch.channels_last
    )
