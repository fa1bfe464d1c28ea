"""Channel-wise operations before a threshold become part of it.

Between a 1-bit convolution and the next sign stand operations that see one channel's number each:
a batch norm, a slope. The code is then a function of the convolution's sum, a whole number: it is
evaluated for every sum there can be, by the graph's own operations in float32, and the operations
give way to the sum at which it changes. Before other maps the same place is found among all numbers
of float32, by bisection, where each operation rises or falls throughout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnbench.packing.ir import Graph, Node, Weight, mapped
from bnnbench.runtime.ops import OPS

_UNARY = {"relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "relu6"}
_WITH_NUMBERS = {"batch_norm", "prelu", "add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"}
_WITH_NUMBERS |= {"addcmul", "affine", "slopes"}
LARGE = 1e30  # no activation comes near, and no product of it overflows


def whole_thresholds(graph: Graph) -> None:
    """Thresholds of sums, behind convolutions whose both sides are signs times one scale."""
    made: dict[Node, Node] = {}
    for cut in [node for node in graph.nodes if node.op == "binarize"]:
        source, region = _region(graph, cut, ("max_pool2d",))
        if source is None or source.op != "conv2d" or not _is_plain(source):
            continue
        folded = _of_sums(source, region, cut)
        if folded is not None:
            bare = made[source] if source in made else _bare(graph, source)
            made[source] = bare
            for pool in [
                node for node in graph.nodes if node in region and node.op == "max_pool2d"
            ]:
                bare = graph.insert_after(
                    pool, Node(pool.op, [bare, *pool.args[1:]], dict(pool.kwargs), pool.shape)
                )
            _rewrite(cut, bare, *folded)
    graph.prune()


def float_thresholds(graph: Graph) -> None:
    """Thresholds of any maps."""
    for cut in [node for node in graph.nodes if node.op == "binarize"]:
        source, region = _region(graph, cut, ())
        if source is None or not region or not all(_is_monotone(node) for node in region):
            continue
        if any(sum(p in region or p is source for p in node.parents()) > 1 for node in region):
            continue
        if source.shape is None or len(source.shape) != 4 or source.shape[1] is None:
            continue
        _rewrite(cut, source, *_bisected(source, region, cut))
    graph.prune()


def _rewrite(cut: Node, source: Node, edge: Tensor, flip: Tensor) -> None:
    cut.args = [source, edge, flip if bool(flip.any()) else None, *cut.args[3:]]


def _region(graph: Graph, cut: Node, more: tuple[str, ...]) -> tuple[Node | None, set[Node]]:
    """Where the channel-wise operations before ``cut`` begin, and these, if read by none else."""
    region: set[Node] = set()
    sources: set[Node] = set()
    waiting = [cut.args[0]]
    while waiting:
        node = waiting.pop()
        if node in region or node in sources:
            continue
        if _is_channelwise(node) or (node.op in more and node.shape and len(node.shape) == 4):
            region.add(node)
            waiting += node.parents()
        else:
            sources.add(node)
    users = graph.users()
    read_elsewhere = any(
        user not in region and user.op != "binarize" for node in region for user in users[node]
    )
    if len(sources) != 1 or read_elsewhere or region & set(graph.outputs) or cut.args[5] != 1:
        return None, set()
    source = sources.pop()
    is_binary = source.op == "conv2d" and isinstance(source.args[1], Weight)
    if is_binary and any(u not in region and u.op != "binarize" for u in users[source]):
        return None, set()
    return source, region


def _is_channelwise(node: Node) -> bool:
    if node.op not in _UNARY | _WITH_NUMBERS or node.shape is None or len(node.shape) != 4:
        return False
    if node.op == "batch_norm" and node.args[5]:
        return False
    if any(isinstance(each, Weight) for each in node.inputs()):
        return False
    if node.op.endswith(".Tensor") and len(node.parents()) > 1:  # of two maps: a shortcut
        return False
    constants = [each for each in node.inputs() if isinstance(each, Tensor)]
    rows = [each.numel() for each in constants]
    across = [each for each in constants if each.numel() > 1 and node.op.endswith(".Tensor")]
    if any(each.dim() < 3 or each.shape[-1] != 1 or each.shape[-2] != 1 for each in across):
        return False
    return all(count in (1, node.shape[1]) for count in rows)


def _is_monotone(node: Node) -> bool:
    if node.op in _UNARY or node.op in ("batch_norm", "affine"):
        return True
    if node.op == "prelu":
        return bool((node.args[1] >= 0).all())
    if node.op == "slopes":
        return bool((node.args[1] >= 0).all() and (node.args[2] >= 0).all())
    return node.op in ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor") and not isinstance(
        node.args[0], Tensor
    )


def _is_plain(conv: Node) -> bool:
    """Whether a convolution's output is a scale of each channel times a sum of signs."""
    x, weight, *rest = conv.args
    if not isinstance(weight, Weight) or not weight.per_channel or weight.offset is not None:
        return False
    padded = isinstance(x, Node) and x.op == "pad"
    binary = x.args[0] if padded else x
    if binary.op != "binarize" or binary.args[4] != 0 or binary.args[3] <= 0:
        return False
    outside = x.args[3] if padded and len(x.args) > 3 else None  # a sign as well, or nothing
    no_bias = not rest or rest[0] is None
    return no_bias and (outside or 0.0) / binary.args[3] in (-1, 0, 1)


def _of_sums(conv: Node, region: set[Node], cut: Node) -> tuple[Tensor, Tensor] | None:
    """The cut of each channel's sum, found by evaluating every sum there can be."""
    weight: Weight = conv.args[1]
    x = conv.args[0]
    binary = x.args[0] if x.op == "pad" else x
    most = weight.signs[0].numel()
    sums = torch.arange(-most, most + 1, dtype=torch.float32)
    scale = (binary.args[3] * weight.scale).flatten()
    values = {conv: sums.view(-1, 1, 1, 1) * scale.expand(len(weight.signs)).view(1, -1, 1, 1)}
    for node in _in_order(region, conv):
        if node.op == "max_pool2d":
            values[node] = values[node.args[0]]
            if not bool((values[node].diff(dim=0) >= 0).all()):
                return None
        else:
            values[node] = _evaluated(node, values)
    high = _codes(cut, values[cut.args[0]])[:, :, 0, 0]
    changes = high[1:] != high[:-1]
    if bool((changes.sum(0) > 1).any()):
        return None
    flip = high[0] & ~high[-1]
    first = changes.to(torch.int8).argmax(0) + 1
    edge = torch.where(changes.any(0), sums[first], torch.where(high[0], -torch.inf, torch.inf))
    return edge, flip


def _bisected(source: Node, region: set[Node], cut: Node) -> tuple[Tensor, Tensor]:
    """The cut of each channel among the numbers of float32, each operation being monotone."""
    assert source.shape is not None
    assert source.shape[1] is not None
    order = _in_order(region, source)

    def high(x: Tensor) -> Tensor:
        values = {source: x.view(1, -1, 1, 1)}
        for node in order:
            values[node] = _evaluated(node, values)
        return _codes(cut, values[cut.args[0]]).flatten()

    ends = torch.full((2, source.shape[1]), LARGE)
    low, top = _ordered(-ends[0]), _ordered(ends[1])
    first, last = high(_float(low)), high(_float(top))
    while bool((top - low > 1).any()):
        middle = torch.div(low + top, 2, rounding_mode="floor")
        is_first = high(_float(middle)) == first
        low, top = torch.where(is_first, middle, low), torch.where(is_first, top, middle)
    edge = torch.where(first == last, torch.where(first, -torch.inf, torch.inf), _float(top))
    return edge, first & ~last


def _ordered(x: Tensor) -> Tensor:
    """Whole numbers in the order of the floats they stand for."""
    bits = x.contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits >= 0, bits, -(bits + 2**31) - 1)


def _float(order: Tensor) -> Tensor:
    bits = torch.where(order >= 0, order, -(order + 1) - 2**31)
    return bits.to(torch.int32).view(torch.float32)


def _in_order(region: set[Node], source: Node) -> list[Node]:
    """The nodes of ``region``, each behind what it reads."""
    found: list[Node] = []
    waiting = set(region)
    while waiting:
        ready = [n for n in waiting if all(p is source or p in found for p in n.parents())]
        found += ready
        waiting -= set(ready)
    return found


def _evaluated(node: Node, values: dict[Node, Tensor]) -> Tensor:
    def known(leaf: Any) -> Any:
        return values[leaf] if isinstance(leaf, Node) else leaf

    kwargs = {key: mapped(value, known) for key, value in node.kwargs.items()}
    return OPS[node.op](*mapped(node.args, known), **kwargs)


def _codes(cut: Node, x: Tensor) -> Tensor:
    _, edge, flip, *_ = cut.args
    return OPS["binarize"](x, edge, flip, 1.0, 0.0, 1) > 0


def _bare(graph: Graph, conv: Node) -> Node:
    """The convolution without its scale, so that it gives the sums themselves."""
    weight: Weight = conv.args[1]
    x = conv.args[0]
    binary = x.args[0] if x.op == "pad" else x
    signs = Node("binarize", [*binary.args[:3], 1.0, 0.0, 1], {}, binary.shape)
    graph.insert_after(binary, signs)
    if x.op == "pad":
        if any(each not in (None, 0, 0.0) for each in x.args[3:]):
            scale = binary.args[3]
            signs = Node("pad", [signs, *x.args[1:3], x.args[3] / scale], {}, x.shape)
        else:
            signs = Node("pad", [signs, *x.args[1:]], dict(x.kwargs), x.shape)
        graph.insert_after(x, signs)
    ones = torch.ones((1,) * weight.signs.dim())
    bare = Weight(weight.name, weight.signs, ones, None)
    node = Node("conv2d", [signs, bare, *conv.args[2:]], dict(conv.kwargs), conv.shape)
    return graph.insert_after(conv, node)
