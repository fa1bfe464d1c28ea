"""The graph of a network in evaluation, with its quantizers as operations of their own.

``torch.export`` runs the network on shapes alone. While it does, a weight side hands on its latent
weight, which stands for the packed one, and an activation side that is a threshold is an operator.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.packing.ir import Graph, Node, Shape, Weight, mapped
from bnnbench.packing.sides import Cut, NotPackable, checked_cut, weight_of
from bnnbench.runtime.ops import OPS
from bnnbench.runtime.shapes import resolved_padding

# What changes nothing in evaluation, or says only where numbers lie.
_PASSED = (
    "dropout",
    "feature_dropout",
    "contiguous",
    "clone",
    "detach",
    "alias",
    "detach_",
    "lift_fresh_copy",
)
_DROPPED = ("memory_format", "layout", "device", "pin_memory")
_NUMBERS = {
    operator.getitem: "getitem",
    operator.add: "number.add",
    operator.sub: "number.sub",
    operator.mul: "number.mul",
    operator.floordiv: "number.floordiv",
    operator.mod: "number.mod",
    math.floor: "number.floor",
}


@torch.library.custom_op("bnnbench::binarize", mutates_args=())
def _binarize(x: Tensor, index: int) -> Tensor:
    """Stands for the activation side of number ``index``."""
    raise RuntimeError("only traced")


@_binarize.register_fake
def _(x: Tensor, index: int) -> Tensor:
    return torch.empty_like(x)


@contextmanager
def _marked(layers: Sequence[tuple[str, BinaryLayer]]) -> Iterator[dict[int, Cut]]:
    """The sides of ``layers`` replaced by what the trace sees; yields the cuts by number."""
    cuts: dict[int, Cut] = {}
    changed: list[nn.Module] = []
    try:
        for index, (_, layer) in enumerate(layers):
            weight, activation = layer.weight_quantizer, layer.activation_quantizer
            weight.forward = lambda latent: latent
            changed.append(weight)
            found = checked_cut(activation, _channels(layer))
            if found is None:
                continue
            cuts[index] = found

            def forward(x: Tensor, index: int = index, found: Cut = found) -> Tensor:
                seen = x if found.compared is None else found.compared(x)
                return torch.ops.bnnbench.binarize(seen, index)

            activation.forward = forward
            changed.append(activation)
        yield cuts
    finally:
        for side in changed:
            side.__dict__.pop("forward", None)


def _channels(layer: BinaryLayer) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


@torch.no_grad()
def trace(net: nn.Module, size: Sequence[int]) -> Graph:
    """The graph of ``net``, which is in evaluation and on the CPU, for inputs (N, *size).

    Raises:
        NotPackable: a weight of several bits or bases, an operation that a packed file does not
            know, or a network that ``torch.export`` does not follow.
    """
    layers = list(binary_layers(net))
    weights = {f"{name}.weight": weight_of(name, layer) for name, layer in layers}
    for name, weight in list(weights.items()):
        if isinstance(weight, Tensor):
            continue
        twin = dict(net.named_parameters(remove_duplicate=False))[name]
        same = [n for n, p in net.named_parameters(remove_duplicate=False) if p is twin]
        weights |= dict.fromkeys(same, weight)
    with _marked(layers) as cuts:
        try:
            program = torch.export.export(
                net,
                (torch.zeros(2, *size),),
                dynamic_shapes=({0: Dim("images", min=1)},),
                strict=False,
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise NotPackable(
                f"{type(net).__name__} cannot be followed by torch.export: {reason}"
            ) from error
    return _Reader(program, weights, cuts).graph()


class _Reader:
    """An exported program, read node by node."""

    def __init__(
        self,
        program: ExportedProgram,
        weights: dict[str, Weight | Tensor],
        cuts: dict[int, Cut],
    ) -> None:
        self.program, self.weights, self.cuts = program, weights, cuts
        self.values: dict[fx.Node, Any] = {}
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        """All of it."""
        given = self._given()
        outputs: list[Node] = []
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = given[node.name]
            elif node.op == "output":
                results: Any = node.args[0]
                outputs = [self.values[each] for each in results]
            elif node.op == "call_function":
                self.values[node] = self._read(node)
        return Graph(self.nodes, outputs)

    def _given(self) -> dict[str, Any]:
        program: Any = self.program  # its targets are typed as what they may be in other kinds
        found: dict[str, Any] = {}
        for spec in program.graph_signature.input_specs:
            name, target = spec.arg.name, spec.target
            if spec.kind == InputKind.USER_INPUT:
                self.nodes.append(Node("input", []))
                found[name] = self.nodes[-1]
            elif spec.kind == InputKind.CONSTANT_TENSOR or target not in program.state_dict:
                found[name] = program.constants[target].detach()
            else:
                found[name] = self.weights.get(target, program.state_dict[target].detach())
        return found

    def _read(self, node: fx.Node) -> Any:
        args = mapped(node.args, self._value)
        kwargs = {key: mapped(value, self._value) for key, value in node.kwargs.items()}
        if node.target in _NUMBERS:
            return self._add(_NUMBERS[node.target], args, {}, node)
        name = str(node.target).removeprefix("aten.").removesuffix(".default")
        if name == "bnnbench.binarize":
            return self._binarize(args, node)
        if node.target.__module__ != "torch._ops.aten":
            raise NotPackable(
                f"{self._where(node)}: {node.target} is no operation of a packed file"
            )
        if name == "conv2d.padding":
            return self._in_pixels(args, node)
        packet, _, overload = name.partition(".")
        if packet == "_assert_tensor_metadata":
            return None
        if packet in _PASSED:
            return args[0]
        if packet in ("to", "_to_copy", "type_as") and self._keeps_type(node):
            return args[0]
        kwargs = {key: value for key, value in kwargs.items() if key not in _DROPPED}
        if not packet.endswith("_"):
            return self._add(name, args, kwargs, node)
        plain = packet.removesuffix("_") + (f".{overload}" if overload else "")
        value = self._add(plain, args, kwargs, node)
        for other, known in self.values.items():  # what reads the input later sees the change
            if known is args[0]:
                self.values[other] = value
        return value

    def _in_pixels(self, args: list[Any], node: fx.Node) -> Node:
        """A convolution with padding in words, and a pad before it where its sides differ."""
        x, weight, *rest = args
        defaults = [None, [1, 1], "valid", [1, 1], 1]
        bias, stride, word, dilation, groups = [*rest, *defaults[len(rest) :]]
        kernel: Any = node.args[1]
        size = tuple(kernel.meta["val"].shape[2:])
        (top, bottom), (left, right) = resolved_padding(word, size, tuple(dilation))
        if (top, left) != (bottom, right):
            n, c, h, w = x.shape
            shape = n, c, h + top + bottom, w + left + right
            x = Node("pad", [x, [left, right, top, bottom], "constant", 0.0], {}, shape)
            self.nodes.append(x)
            top = left = 0
        given = [x, weight, bias, stride, [top, left], dilation, groups]
        return self._add("conv2d", given, {}, node)

    @staticmethod
    def _keeps_type(node: fx.Node) -> bool:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source.meta["val"].dtype == node.meta["val"].dtype

    def _binarize(self, args: list[Any], node: fx.Node) -> Node:
        found = self.cuts[args[1]]
        axis = 1 if node.meta["val"].dim() == 4 else -1
        parts = [args[0], found.edge.flatten(), found.flip, found.scale, found.offset, axis]
        return self._add("binarize", parts, {}, node)

    def _value(self, value: Any) -> Any:
        return self.values[value] if isinstance(value, fx.Node) else value

    def _add(self, op: str, args: list[Any], kwargs: dict[str, Any], node: fx.Node) -> Node:
        if op not in OPS:
            raise NotPackable(f"{self._where(node)}: {op} is no operation of a packed file")
        self.nodes.append(Node(op, args, kwargs, _shape(node.meta.get("val"))))
        return self.nodes[-1]

    @staticmethod
    def _where(node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        return next((path for path, _ in reversed(list(stack.values())) if path), "the network")


def _shape(value: Any) -> Shape | None:
    if not isinstance(value, Tensor):
        return None
    return tuple(n if isinstance(n, int) else None for n in value.shape)
