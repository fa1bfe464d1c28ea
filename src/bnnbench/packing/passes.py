"""Rewriting a traced graph into packed layers, channel-wise numbers and whole-number thresholds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnbench.packing.ir import Graph, Node, Weight, leaves, mapped
from bnnbench.runtime.ops import OPS


def simplified(graph: Graph) -> Graph:
    """All passes, in order."""
    from bnnbench.packing.thresholds import float_thresholds, whole_thresholds

    fold_constants(graph)
    merge_token_views(graph)
    whole_thresholds(graph)
    channelwise(graph)
    merge_affines(graph)
    float_thresholds(graph)
    pack_layers(graph)
    graph.prune()
    return graph


def fold_constants(graph: Graph) -> None:
    """Compute what depends on constants alone, where the result is not larger than they are."""
    for node in list(graph.nodes[1:]):
        given = list(node.inputs())
        if node.op == "number.floor" or any(isinstance(each, Node | Weight) for each in given):
            continue
        result = OPS[node.op](*node.args, **node.kwargs)
        if not isinstance(result, Tensor):
            continue
        limit = sum(each.numel() for each in given) or 64
        if result.numel() <= limit:
            _make_constant(graph, node, result)


def _make_constant(graph: Graph, node: Node, value: Tensor) -> None:
    def swapped(leaf: Any) -> Any:
        return value if leaf is node else leaf

    for other in graph.nodes:
        other.args = mapped(other.args, swapped)
        other.kwargs = {key: mapped(each, swapped) for key, each in other.kwargs.items()}
    graph.nodes.remove(node)


def merge_token_views(graph: Graph) -> None:
    """``reshape(binarize(reshape(x)))`` of the same shape as x binarizes the last axis of x."""
    for node in list(graph.nodes):
        if node.op not in ("reshape", "view") or not isinstance(inner := node.args[0], Node):
            continue
        if inner.op != "binarize" or not isinstance(before := inner.args[0], Node):
            continue
        if before.op not in ("reshape", "view") or not isinstance(source := before.args[0], Node):
            continue
        if source.shape == node.shape and source.shape and inner.shape:
            if source.shape[-1] != inner.shape[-1] or len(inner.shape) != 2:
                continue
            args = [source, *inner.args[1:5], -1]
            graph.replace(node, graph.insert_after(node, Node("binarize", args, {}, node.shape)))
    graph.prune()


def per_channel(value: Any, node: Node) -> Tensor | None:
    """``value`` as one number, or one a channel of ``node``'s maps; None where it is neither."""
    if isinstance(value, bool) or node.shape is None:
        return None
    if isinstance(value, int | float):
        return torch.tensor([float(value)])
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.numel() == 1:
        return value.flatten().float() if value.dim() <= len(node.shape) else None
    rank = len(node.shape)
    axis = {4: 1, 2: 1}.get(rank)
    if axis is None or value.dim() > rank:
        return None
    shape = (1,) * (rank - value.dim()) + tuple(value.shape)
    wanted = tuple(node.shape[1] if i == axis else 1 for i in range(rank))
    return value.flatten().float() if shape == wanted else None


def channelwise(graph: Graph) -> None:
    """Batch norms, and products and sums with constants of channels, as one form."""
    users = graph.users()
    for node in list(graph.nodes):
        found = _as_affine(node) or _as_slopes(node, users)
        if found is not None:
            found.shape = node.shape
            graph.replace(node, graph.insert_after(node, found))
    graph.prune()


def _as_affine(node: Node) -> Node | None:
    if node.op == "batch_norm":
        x, weight, bias, mean, variance, training, _, eps, *_ = node.args
        if training or not isinstance(x, Node):
            return None
        scale = (variance + eps).rsqrt() if weight is None else weight / (variance + eps).sqrt()
        shift = -mean * scale if bias is None else bias - mean * scale
        return Node("affine", [x, scale, shift])
    packet = node.op.partition(".")[0]
    if packet not in ("add", "sub", "mul", "div") or node.kwargs.get("alpha", 1) != 1:
        return None
    if len(node.args) != 2 or "rounding_mode" in node.kwargs:
        return None
    left, right = node.args
    if not isinstance(left, Node) and packet in ("add", "mul"):
        left, right = right, left
    number = per_channel(right, node)
    if not isinstance(left, Node) or number is None or left.shape != node.shape:
        return None
    if packet in ("add", "sub"):
        return Node("affine", [left, None, number if packet == "add" else -number])
    return Node("affine", [left, number if packet == "mul" else 1 / number, None])


def _as_slopes(node: Node, users: dict[Node, list[Node]]) -> Node | None:
    """``negative x + (positive - negative) relu(x)``, as Maxout writes it."""
    if node.op != "addcmul" or node.kwargs or len(node.args) != 3:
        return None
    base, step, rest = node.args
    if not (isinstance(rest, Node) and rest.op == "relu" and isinstance(base, Node)):
        return None
    x = rest.args[0]
    if base.op == "affine" and base.args[2] is None and base.args[0] is x:
        negative = base.args[1]
    else:
        return None
    step = per_channel(step, node)
    return None if step is None else Node("slopes", [x, negative + step, negative])


def merge_affines(graph: Graph) -> None:
    """One multiply-add where two follow each other."""
    for node in list(graph.nodes):
        users = graph.users()
        if node.op != "affine" or not isinstance(first := node.args[0], Node):
            continue
        if first.op != "affine" or len(users[first]) > 1 or first in graph.outputs:
            continue
        x, scale, shift = first.args
        _, again, more = node.args
        carried = None if shift is None else _times(shift, again)
        node.args = [x, _times(scale, again), _plus(carried, more)]
    graph.prune()


def _times(value: Tensor | None, factor: Tensor | None) -> Tensor | None:
    if value is None or factor is None:
        return factor if value is None else value
    return value * factor


def _plus(value: Tensor | None, more: Tensor | None) -> Tensor | None:
    if value is None or more is None:
        return more if value is None else value
    return value + more


def pack_layers(graph: Graph) -> None:
    """Convolutions and linear layers over two binarized sides, with the affine that follows."""
    for node in list(graph.nodes):
        if node.op == "conv2d":
            found = _packed_conv(node)
        elif node.op == "linear":
            found = _packed_linear(node)
        else:
            found = None
        if found is not None:
            found.shape = node.shape
            graph.replace(node, graph.insert_after(node, found))
    graph.prune()
    _absorb(graph)
    graph.prune()


def _weight(value: Any) -> Weight | None:
    return value if isinstance(value, Weight) and value.per_channel else None


def _packed_conv(node: Node) -> Node | None:
    x, weight, *rest = node.args
    if (weight := _weight(weight)) is None or not isinstance(x, Node):
        return None
    defaults = [None, [1, 1], [0, 0], [1, 1], 1]
    bias, stride, padding, dilation, groups = [*rest, *defaults[len(rest) :]]
    padding_value = 0.0
    if x.op == "pad" and isinstance(x.args[0], Node) and x.args[0].op == "binarize":
        left, right, *rows = x.args[1]
        mode, value = [*x.args[2:], *["constant", None][len(x.args) - 2 :]]
        if mode != "constant" or len(rows) != 2 or min(x.args[1]) < 0 or any(leaves(padding)):
            return None
        is_even = left == right and rows[0] == rows[1]
        x, padding = x.args[0], [rows[0], left] if is_even else [*rows, left, right]
        padding_value = float(value or 0)
        if padding_value not in (-1, 0, 1):
            return None
    if x.op != "binarize" or x.args[5] != 1 or isinstance(padding, str):
        return None
    if bias is not None and not isinstance(bias, Tensor):
        return None
    shape = [list(stride), list(padding), list(dilation), groups, padding_value]
    return Node("packed_conv", [*x.args[:5], weight, bias, *shape])


def _packed_linear(node: Node) -> Node | None:
    x, weight, *rest = node.args
    bias = rest[0] if rest else None
    if (weight := _weight(weight)) is None or not isinstance(x, Node) or x.op != "binarize":
        return None
    if x.args[5] != -1:
        return None
    return Node("packed_linear", [*x.args[:5], weight, bias])


def _absorb(graph: Graph) -> None:
    """The affine behind a packed layer becomes its weight's scale and its bias."""
    users = graph.users()
    for node in list(graph.nodes):
        layer = node.args[0] if node.op == "affine" else None
        if not isinstance(layer, Node) or layer.op not in ("packed_conv", "packed_linear"):
            continue
        if len(users[layer]) > 1 or layer in graph.outputs:
            continue
        weight, bias = layer.args[5:7]
        _, scale, shift = node.args
        if shift is not None:
            shift = shift.expand(len(weight.signs)).clone() if shift.numel() == 1 else shift
        layer.args[5] = weight if scale is None else _scaled(weight, scale)
        layer.args[6] = _plus(_times(bias, scale) if bias is not None else None, shift)
        graph.replace(node, layer)


def _scaled(weight: Weight, factor: Tensor) -> Weight:
    factor = factor.view(-1, *(1,) * (weight.signs.dim() - 1))
    offset = None if weight.offset is None else weight.offset * factor
    return Weight(weight.name, weight.signs, weight.scale * factor, offset)
