"""One forward and backward of a network that says why its binary layers learn, or do not.

It leaves everything as it was: weights, gradients, buffers, random numbers and what loss terms
remember. It runs eagerly, also where the network is compiled: hooks would break its graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.quantizers.base import Side

MEANS = ("flipped", "weight_entropy", "saturated", "dead", "activation_entropy")
WEIGHT_NORMS = ("weight_grad_quantized", "weight_grad_latent")
ACTIVATION_NORMS = ("activation_grad_quantized", "activation_grad_real")
VALUES = (*MEANS, *WEIGHT_NORMS, *ACTIVATION_NORMS)
STEEP = 0.01  # of a layer's largest slope: below it an input counts as outside of the window
Codes = dict[str, Tensor]


class Probed:
    """Values by layer, nan where a layer has none, and over all layers.

    Attributes:
        names: of the layers, in the order of the network.
        values: by layer (rows) and ``VALUES`` (columns).
        counts: how many a value of ``MEANS`` is the mean of, in the same places.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.values = torch.full((len(names), len(VALUES)), math.nan, dtype=torch.float64)
        self.counts = torch.zeros(len(names), len(MEANS), dtype=torch.float64)

    def put(self, layer: int, found: dict[str, Tensor | float], counts: dict[str, int]) -> None:
        """Set values of a layer."""
        for key, value in found.items():
            self.values[layer, VALUES.index(key)] = float(value)
        for key, count in counts.items():
            self.counts[layer, MEANS.index(key)] = count

    def together(self) -> dict[str, float]:
        """Means over all weights, filters, inputs or channels, and norms over all layers."""
        known = self.values.nan_to_num(0)
        means = (known[:, : len(MEANS)] * self.counts).sum(0) / self.counts.sum(0)
        norms = known[:, len(MEANS) :].square().sum(0).sqrt()
        none = self.values[:, len(MEANS) :].isnan().all(0)
        row = torch.cat([means, norms.masked_fill(none, math.nan)]).tolist()
        return dict(zip(VALUES, row, strict=True))


def watched_layers(net: nn.Module) -> dict[str, BinaryLayer]:
    """The layers with weights or activations below full precision, by name."""
    return {
        name: layer for name, layer in binary_layers(net) if any(_few(s) for s in _sides(layer))
    }


@torch.no_grad()
def weight_codes(layers: dict[str, BinaryLayer]) -> Codes:
    """Signs of the binarized weights, as booleans of the weights' shapes."""
    found: Codes = {}
    for name, layer in layers.items():
        side = layer.weight_quantizer
        if side.bits == 1:
            with _mode(side, training=False):  # what is drawn in training has a sign all the same
                found[name] = side.decompose(layer.weight.detach()).code > 0
    return found


def probe(
    net: nn.Module, loss: Callable[[], Tensor], before: Codes, terms: Iterable[Any] = ()
) -> Probed:
    """What the layers of ``net`` do in the forward and backward of ``loss``.

    Args:
        net: in the mode that it is trained in.
        loss: calls ``net.forward`` and returns a scalar.
        before: ``weight_codes`` at the epoch's start.
        terms: callbacks with ``state_dict`` whose hooks may see this forward.
    """
    layers = watched_layers(net)
    probed = Probed(list(layers))
    seen: dict[Side, tuple[Tensor, Tensor]] = {}
    with _untouched(net, terms), torch.enable_grad(), ExitStack() as hooks:
        for layer in layers.values():
            for side in filter(_few, _sides(layer)):
                _watch(side, seen, hooks)
        gradients = _gradients(loss(), seen)
        now = weight_codes(layers)
        for number, (name, layer) in enumerate(layers.items()):
            if name in now:
                probed.put(number, *_of_codes(now[name], before.get(name)))
            for side, names in zip(_sides(layer), (WEIGHT_NORMS, ACTIVATION_NORMS), strict=True):
                norms = gradients.get(side, (None, None))
                known = {n: g.norm() for n, g in zip(names, norms, strict=True) if g is not None}
                probed.put(number, known, {})
            if layer.activation_quantizer in seen:
                probed.put(number, *_of_activations(layer, *seen[layer.activation_quantizer]))
    return probed


def entropy(code: Tensor) -> Tensor:
    """Mean over rows of the entropy of a row's signs, in bits; ``code`` is boolean (rows, n)."""
    share = code.float().mean(1)
    bits = torch.special.entr(share) + torch.special.entr(1 - share)
    return bits.mean() / math.log(2)


def _of_codes(now: Tensor, before: Tensor | None) -> tuple[dict[str, Any], dict[str, int]]:
    found: dict[str, Any] = {"weight_entropy": entropy(now.flatten(1))}
    if before is not None:
        found["flipped"] = (now != before).float().mean()
    return found, {"weight_entropy": len(now), "flipped": now.numel()}


def _of_activations(
    layer: BinaryLayer, real: Tensor, quantized: Tensor
) -> tuple[dict[str, Any], dict[str, int]]:
    """Of inputs and outputs of a layer's activation side, channels in axis 1 or the last one."""
    ones = torch.ones_like(quantized)
    (slope,) = torch.autograd.grad(quantized, real, ones, retain_graph=True)
    axis, slope = 1 if isinstance(layer, nn.Conv2d) else -1, slope.abs()
    by_channel = quantized.detach().transpose(0, axis).flatten(1)
    constant = by_channel.amax(1) == by_channel.amin(1)
    found: dict[str, Any] = {
        "saturated": (slope <= STEEP * slope.max()).float().mean(),
        "dead": constant.float().mean(),
    }
    counts = {"saturated": slope.numel(), "dead": len(constant)}
    if layer.activation_quantizer.bits == 1:
        code = layer.activation_quantizer.decompose(real.detach()).code > 0
        found["activation_entropy"] = entropy(code.transpose(0, axis).flatten(1))
        counts["activation_entropy"] = len(constant)
    return found, counts


def _sides(layer: BinaryLayer) -> tuple[Side, Side]:
    return layer.weight_quantizer, layer.activation_quantizer


def _few(side: Side) -> bool:
    return side.bits < 32


def _watch(side: Side, seen: dict[Side, tuple[Tensor, Tensor]], hooks: ExitStack) -> None:
    """Note what goes into a side and comes out of it in the next forward.

    It gets an alias of its input, so that the alias's gradient is what comes back through the side
    alone, and not through a shortcut around it.
    """
    given: list[Tensor] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        own = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
        given[:] = [own.view_as(own)]
        return given[0], *inputs[1:]

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[side] = given[0], output

    for handle in (side.register_forward_pre_hook(before), side.register_forward_hook(after)):
        hooks.callback(handle.remove)


def _gradients(
    loss: Tensor, seen: dict[Side, tuple[Tensor, Tensor]]
) -> dict[Side, tuple[Tensor | None, Tensor | None]]:
    """By side those at its output and at its input; None where the loss does not depend on it."""
    wanted = [tensor for pair in seen.values() for tensor in reversed(pair)]
    if not wanted:
        return {}
    found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    pairs = zip(found[::2], found[1::2], strict=True)
    return dict(zip(seen, pairs, strict=True))


@contextmanager
def _untouched(net: nn.Module, terms: Iterable[Any]) -> Iterator[None]:
    """Whatever is run inside leaves buffers, random numbers and the terms' state as they were."""
    kept = [(buffer, buffer.clone()) for buffer in net.buffers()]
    states = [(term, deepcopy(term.state_dict())) for term in terms]
    devices = {parameter.device for parameter in net.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
        for term, state in states:
            term.load_state_dict(state)


@contextmanager
def _mode(side: Side, training: bool) -> Iterator[None]:
    before = side.training
    side.train(training)
    try:
        yield
    finally:
        side.train(before)
