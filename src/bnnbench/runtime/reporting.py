"""Which path each layer of a packed network takes, and what its call computes beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.linear import PackedLinear


class LayerPath(NamedTuple):
    """One layer.

    Attributes:
        name: the module's, as the trained network called it.
        path: ``kernel: ...`` or ``float: ...``, and why.
        fused: the operations behind it that the same call computes.
        feeds: names of the layers whose codes the same call makes.
    """

    name: str
    path: str
    fused: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()


def report(net: nn.Module) -> list[LayerPath]:
    """The path of every layer of ``net`` with 1-bit weights, in order."""
    names = getattr(net, "layer_names", {})
    floats = getattr(net, "document", {}).get("float_layers", [])
    steps = _steps(net)
    found = []
    for key, module in net.named_modules():
        parent, _, number = key.rpartition(".")
        if not isinstance(module, PackedConv2d | PackedLinear):
            continue
        if not isinstance(net.get_submodule(parent), PackedLinear):
            more = steps.get(number, ((), ()))
            found.append(LayerPath(names.get(number, key), module.path, *more))
    return found + [LayerPath(name, f"float: {why}") for name, why in floats]


def _steps(net: Any) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """What the step of each packed layer computes beside it, and whom it feeds, by its number."""
    if not hasattr(net, "plan"):
        return {}
    operations, names = net.plan.operations, net.layer_names
    return {
        str(group.numbers[0]): (
            tuple(operations[number].op.partition(".")[0] for number in group.numbers[1:]),
            tuple(names[str(number)] for number in group.next),
        )
        for _, _, group in net.plan.steps
        if group.epilogue is not None
    }
