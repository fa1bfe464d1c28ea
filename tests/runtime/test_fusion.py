"""Graphs of every shape, fused and one operation after the other: whole numbers, so equal bits."""

from __future__ import annotations

import copy
import pickle
import random

import pytest
import torch
from torch import Tensor

from bnnbench.packing.ir import Graph, Node, Weight
from bnnbench.packing.writing import Writer
from bnnbench.runtime import build
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.kernel import Kernel
from bnnbench.runtime.selftest import on

CHANNELS, SIDE, GRAPHS = 8, 7, 150
ALL = 2**63 - 1


class Drawn:
    """A random graph of maps of ``CHANNELS`` channels."""

    def __init__(self, seed: int) -> None:
        self.draw, self.torch = random.Random(seed), torch.Generator().manual_seed(seed)
        self.nodes = [Node("input", [])]
        self.sides: dict[Node, int] = {}
        weight = self.whole(CHANNELS, 3, 3, 3)
        stem = [self.nodes[0], weight, self.whole(CHANNELS), [1, 1], [1, 1], [1, 1], 1]
        self.add("conv2d", stem, SIDE)
        for _ in range(self.draw.randint(2, 14)):
            self.step()
        self.outputs = [self.nodes[-1]]
        if self.draw.random() < 0.5:  # that other operations read as well
            self.outputs.append(self.draw.choice([*self.sides]))

    def whole(self, *shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=self.torch).float()

    def powers(self) -> Tensor:
        """A power of 2 for each channel, of either sign."""
        exponent = torch.randint(-1, 2, (CHANNELS,), generator=self.torch)
        return 2.0**exponent * torch.where(self.whole(CHANNELS) >= 0, 1.0, -1.0)

    def add(self, op: str, args: list, side: int) -> Node:
        self.nodes.append(Node(op, args))
        self.sides[self.nodes[-1]] = side
        return self.nodes[-1]

    def step(self) -> None:
        x = self.nodes[-1] if self.draw.random() < 0.8 else self.draw.choice([*self.sides])
        side = self.sides[x]
        kind = self.draw.choice(
            ("conv", "conv", "conv", "add", "add", "affine", "slopes", "clamp", "copy", "strided")
        )
        if kind == "conv":
            signs = torch.where(self.whole(CHANNELS, CHANNELS, 3, 3) >= 0, 1.0, -1.0)
            weight = Weight("layer", signs, self.powers().view(-1, 1, 1, 1), None)
            edge, flip = self.whole(CHANNELS), self.whole(CHANNELS) > 1
            shape = [[1, 1], [1, 1], [1, 1], 1, self.draw.choice((0.0, -1.0))]
            self.add(
                "packed_conv", [x, edge, flip, 1.0, 0.0, weight, self.whole(CHANNELS), *shape], side
            )
        elif kind == "add":
            others = [each for each, its in self.sides.items() if its == side]
            self.add("add.Tensor", [x, self.draw.choice(others)], side)
        elif kind == "affine":
            self.add("affine", [x, self.powers(), self.whole(CHANNELS)], side)
        elif kind == "slopes":
            self.add("slopes", [x, self.powers().abs(), self.powers()], side)
        elif kind == "clamp":
            self.add("hardtanh", [x, -9.0, 7.0], side)
        elif kind == "copy":
            self.add("slice.Tensor", [x, self.draw.choice((0, 2)), 0, ALL], side)
        else:
            start = self.draw.choice((0, 0, 0, 1))
            half = self.add("slice.Tensor", [x, 2, start, ALL, 2], -1)
            self.sides.pop(half)
            quarter = self.add("slice.Tensor", [half, 3, start, ALL, 2], -1)
            self.sides.pop(quarter)
            front = self.draw.randint(0, 2)
            few = self.add("slice.Tensor", [quarter, 1, 0, CHANNELS - 2], -1)
            self.sides.pop(few)
            pad = [0, 0, 0, 0, front, 2 - front]
            self.add("pad", [few, pad, "constant", 0.0], (side - start + 1) // 2)

    def network(self) -> PackedNetwork:
        writer = Writer()
        nodes, outputs = writer.nodes(Graph(self.nodes, self.outputs))
        count = sum(node.op == "packed_conv" for node in self.nodes)
        facts = {"name": "drawn", "task": "classification", "classes": [], "mean": [], "std": []}
        document = {**facts, "image": [3, SIDE, SIDE], "nodes": nodes, "outputs": outputs}
        document |= {"constants": writer.constants, "layers": [f"layer{n}" for n in range(count)]}
        return built(document, writer.tensors(), "drawn")

    def image(self) -> Tensor:
        return self.whole(2, 3, SIDE, SIDE)


def results(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("path", ["float", *build.supported()])
def test_every_graph_gives_the_bits_of_its_operations(path: str) -> None:
    kernel = None if path == "float" else Kernel(build.library(path))
    fused = 0
    for seed in range(GRAPHS):
        drawn = Drawn(seed)
        net = drawn.network()
        for layer in net.layers.values():
            on(kernel, layer)  # pyright: ignore[reportArgumentType]
        for step in net.plan.steps:
            if step.group.stem is not None:
                on(kernel, step.group.stem)
            fused += len(step.group.numbers) - 1
        x = drawn.image()
        found, expected = results(net(x)), results(net.interpreted(x))
        ops = [(node.op, len(node.parents())) for node in drawn.nodes]
        assert all(map(torch.equal, found, expected)), (seed, ops)
    assert fused > GRAPHS / 2


def test_copies_compute_the_same() -> None:
    drawn = Drawn(3)
    net, x = drawn.network(), drawn.image()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(map(torch.equal, results(other(x)), results(net(x))))
