"""A network as a flat list of operations, to be rewritten and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int | None, ...]  # None: the number of images


@dataclass(eq=False)
class Weight:
    """A 1-bit weight, ``scale * sign + offset``.

    Attributes:
        name: of its layer.
        signs: -1.0 and +1.0, the weight's shape.
        scale: broadcasts against ``signs``, as ``offset``.
    """

    name: str
    signs: Tensor
    scale: Tensor
    offset: Tensor | None

    @property
    def shape(self) -> torch.Size:
        """Of the weight."""
        return self.signs.shape

    @cached_property
    def dense(self) -> Tensor:
        """The weight itself."""
        value = self.scale * self.signs
        return value if self.offset is None else value + self.offset

    @property
    def per_channel(self) -> bool:
        """Whether scale and offset are numbers of output channels."""
        parts = [self.scale] + ([] if self.offset is None else [self.offset])
        return all(part[:1].numel() == 1 for part in parts)


@dataclass(eq=False)
class Node:
    """One operation; its arguments are nodes, tensors, weights, and plain values."""

    op: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None

    def inputs(self) -> Iterator[Any]:
        """Nodes, tensors and weights among the arguments."""
        for value in leaves([self.args, list(self.kwargs.values())]):
            if isinstance(value, Node | Tensor | Weight):
                yield value

    def parents(self) -> list[Node]:
        """Nodes among the arguments."""
        return [value for value in self.inputs() if isinstance(value, Node)]


def compact(value: Tensor) -> Tensor:
    """One number along every axis on which nothing changes."""
    for axis in range(value.dim()):
        if value.shape[axis] > 1:
            first = value.narrow(axis, 0, 1)
            if torch.equal(first.expand_as(value), value):
                value = first
    return value


def leaves(value: Any) -> Iterator[Any]:
    """All that lists and tuples hold, at any depth."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """``value`` with every leaf replaced; tuples become lists."""
    if isinstance(value, list | tuple):
        return [mapped(each, function) for each in value]
    return function(value)


@dataclass
class Graph:
    """``nodes`` in the order of their computation; the first is the input."""

    nodes: list[Node]
    outputs: list[Node]

    def users(self) -> dict[Node, list[Node]]:
        """The nodes that read each node; a node twice where it reads twice."""
        found: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for parent in node.parents():
                found[parent].append(node)
        return found

    def replace(self, old: Node, new: Node) -> None:
        """Let all that reads ``old`` read ``new``."""

        def swapped(value: Any) -> Any:
            return new if value is old else value

        for node in self.nodes:
            if node is not new:
                node.args = mapped(node.args, swapped)
                node.kwargs = {k: mapped(v, swapped) for k, v in node.kwargs.items()}
        self.outputs = [swapped(node) for node in self.outputs]

    def insert_after(self, place: Node, node: Node) -> Node:
        """Put ``node`` behind ``place``."""
        self.nodes.insert(self.nodes.index(place) + 1, node)
        return node

    def prune(self) -> None:
        """Leave out what no output needs."""
        needed: set[Node] = {self.nodes[0], *self.outputs}
        for node in reversed(self.nodes):
            if node in needed:
                needed.update(node.parents())
        self.nodes = [node for node in self.nodes if node in needed]
