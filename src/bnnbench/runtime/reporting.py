"""Which path each layer of a packed network takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.linear import PackedLinear


class LayerPath(NamedTuple):
    """One layer.

    Attributes:
        name: the module's, as the trained network called it.
        path: ``kernel: ...`` or ``float: ...``, and why.
    """

    name: str
    path: str


def report(net: nn.Module) -> list[LayerPath]:
    """The path of every layer of ``net`` with 1-bit weights, in order."""
    names = getattr(net, "layer_names", {})
    floats = getattr(net, "document", {}).get("float_layers", [])
    found = [
        LayerPath(names.get(key.rpartition(".")[2], key), module.path)
        for key, module in net.named_modules()
        if isinstance(module, PackedConv2d | PackedLinear)
        and not isinstance(net.get_submodule(key.rpartition(".")[0]), PackedLinear)
    ]
    return found + [LayerPath(name, f"float: {why}") for name, why in floats]
