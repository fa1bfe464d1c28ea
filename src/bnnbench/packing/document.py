"""A trained network as a packed file, compared with itself before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.layers import binary_layers
from bnnbench.packing.ir import Graph, Weight
from bnnbench.packing.passes import simplified
from bnnbench.packing.trace import trace
from bnnbench.packing.writing import Writer
from bnnbench.runtime.operation import PACKED


@dataclass(frozen=True)
class Facts:
    """What a packed file says beside its network.

    Attributes:
        name: of the network.
        task: ``classification`` or ``detection``.
        classes: names in the order of the logits.
        mean, std: per channel, of pixels scaled to [0, 1].
        more: further plain values: provenance, config, default boxes.
    """

    name: str = "network"
    task: str = "classification"
    classes: Sequence[str] = ()
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def packed(
    net: nn.Module, size: Sequence[int], facts: Facts | None = None, half: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of ``net``.

    Args:
        net: a network, left as it is.
        size: of one input, (C, H, W) of images.
        facts: what the file says of it.
        half: weights of float layers in half precision.

    Raises:
        NotPackable: it cannot be packed; the message names the layer.
    """
    facts = facts or Facts()
    net = copy.deepcopy(net).cpu().float().eval()
    graph = simplified(trace(net, size))
    writer = Writer(half)
    nodes, outputs = writer.nodes(graph)
    layers = [node.args[5].name for node in graph.nodes if node.op in PACKED]
    document = {
        "name": facts.name,
        "task": facts.task,
        "classes": list(facts.classes),
        "mean": list(facts.mean),
        "std": list(facts.std),
        "image": list(size),
        "nodes": nodes,
        "constants": writer.constants,
        "outputs": outputs,
        "layers": layers,
        "float_layers": _float_layers(graph, net),
        **facts.more,
    }
    return document, writer.tensors()


def _float_layers(graph: Graph, net: nn.Module) -> list[list[str]]:
    """Names of layers whose weights are packed and which are computed in floats, and why."""
    sides = {name: layer.activation_quantizer for name, layer in binary_layers(net)}
    found = []
    for node in graph.nodes:
        names = [each.name for each in node.inputs() if isinstance(each, Weight)]
        if names and node.op not in PACKED:
            found.append([names[0], _why_float(node, sides[names[0]])])
    return found


def _why_float(node: Node, side: nn.Module) -> str:
    before = [parent.op for parent in node.parents()]
    if "pad" in before and any(p.op == "binarize" for n in node.parents() for p in n.parents()):
        return "what stands outside the map is neither 0 nor a code"
    if "binarize" in before:
        return "the weight's scale is no number of a channel"
    if not before:
        return "only a part of its weight is read"
    return f"activations of {type(side).__name__}"
