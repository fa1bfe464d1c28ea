"""A rewritten graph as a document and its tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnbench.packing.ir import Graph, Node, Weight, compact, mapped
from bnnbench.runtime.ops import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Positions of the weights of float layers, which may be stored in half precision.
_LAYERS = {"conv1d": 1, "conv2d": 1, "linear": 1, "conv_transpose2d.input": 1}


class Writer:
    """Collects constants as it writes nodes down; each constant once, in the order of first use.

    Args:
        half: the weights of float layers in half precision.
    """

    def __init__(self, half: bool = False) -> None:
        self.half = half
        self.constants: list[list[Any]] = []
        self.parts: dict[str, list[Tensor]] = {}
        self._known: dict[int, int] = {}
        self._kept: list[Any] = []  # alive, so that an id is one object's

    def nodes(self, graph: Graph) -> tuple[list[Any], list[int]]:
        """The operations behind the input, and the numbers of the outputs; the input is 0."""
        numbers = {node: number for number, node in enumerate(graph.nodes)}
        written: list[Any] = []
        for node in graph.nodes[1:]:
            halved = self.half and node.op in _LAYERS

            def plain(
                leaf: Any, weight: Any = node.args[_LAYERS[node.op]] if halved else None
            ) -> Any:
                return self._plain(leaf, numbers, leaf is weight)

            entry = [node.op, mapped(node.args, plain)]
            if node.kwargs:
                entry.append({key: mapped(value, plain) for key, value in node.kwargs.items()})
            written.append(entry)
        return written, [numbers[node] for node in graph.outputs]

    def tensors(self) -> dict[str, Tensor]:
        """All constants, end to end by kind."""
        return {kind: torch.cat(parts) for kind, parts in self.parts.items()}

    def _plain(self, leaf: Any, numbers: dict[Node, int], halved: bool) -> Any:
        if isinstance(leaf, Node):
            return f"%{numbers[leaf]}"
        if isinstance(leaf, Tensor | Weight):
            return f"${self._constant(leaf, halved)}"
        if isinstance(leaf, torch.dtype):
            return f"#{_NAMES[leaf]}"
        if isinstance(leaf, str):
            return f"'{leaf}"
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return f"={leaf}"
        return leaf

    def _constant(self, value: Tensor | Weight, halved: bool) -> int:
        if id(value) not in self._known:
            entry = (
                self._weight(value) if isinstance(value, Weight) else self._tensor(value, halved)
            )
            self._known[id(value)] = len(self.constants)
            self._kept.append(value)
            self.constants.append(entry)
        return self._known[id(value)]

    def _tensor(self, value: Tensor, halved: bool = False) -> list[Any]:
        shape = list(value.shape)
        if value.dtype == torch.bool:
            self._store("bits", _packed(value))
            return ["flags", shape]
        if not value.is_floating_point():
            self._store("integers", value.to(torch.int64).flatten())
            return ["integers", shape]
        kind = "halves" if halved else "floats"
        least = compact(value)
        self._store(kind, least.flatten().to(torch.float16 if halved else torch.float32))
        return [kind, shape] if least.shape == value.shape else [kind, shape, list(least.shape)]

    def _weight(self, weight: Weight) -> list[Any]:
        parts = [self._constant(_repeated(weight.scale), False)]
        if weight.offset is not None:
            parts.append(self._constant(_repeated(weight.offset), False))
        self._store("bits", _packed(weight.signs > 0))
        return ["signs", list(weight.shape), *parts]

    def _store(self, kind: str, values: Tensor) -> None:
        self.parts.setdefault(kind, []).append(values)


def _packed(high: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(high.flatten().numpy(), bitorder="little"))


def _repeated(value: Tensor) -> Tensor:
    """The first filters of ``value``, if all others repeat them in turn."""
    value = compact(value)
    count = len(value) if value.dim() else 1
    for period in range(1, count // 2 + 1):
        turns = -(-count // period)
        if torch.equal(value[:period].repeat(turns, *(1,) * (value.dim() - 1))[:count], value):
            return value[:period].clone()
    return value
