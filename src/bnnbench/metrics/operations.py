"""Operations and sizes of a network, by the bits of each layer.

OPs = full-precision MACs + binary MACs / 64 (Bi-Real Net, arXiv 1808.00278; ReActNet): a MAC of
``w`` x ``a`` bits over several bases counts as ``w * a * bases`` binary MACs where both sides are
quantized, else as one full-precision MAC. Convolutions and linear layers are counted; parameters of
training alone (noise, uncertainties) are not. Packed size: binarized weights at their bits,
everything else in 4 bytes; the scales and offsets that a method derives from its latent weights are
listed apart (``scale_bytes``), because papers leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.layers import BinaryConv2d, BinaryLinear
from bnnbench.quantizers.base import Side

FP32 = 32


@dataclass(frozen=True)
class LayerCost:
    """Cost of one convolution or linear layer for one image.

    Attributes:
        macs: multiply-accumulates of the dense layer.
        weight_bits, activation_bits: bits of each side.
        bases: binary tensors of both sides multiplied.
        weights: elements of the weight.
        weight_bytes: packed weight, without scales.
        scale_bytes: scales and offsets derived from the latent weight; learned ones are parameters.
    """

    name: str
    macs: int
    weight_bits: int
    activation_bits: int
    bases: int
    weights: int
    weight_bytes: float
    scale_bytes: int

    @property
    def is_binary(self) -> bool:
        """Both sides are quantized, so that the layer runs on bits."""
        return self.weight_bits < FP32 and self.activation_bits < FP32

    @property
    def binary_macs(self) -> int:
        """1-bit multiply-accumulates."""
        return self.macs * self.weight_bits * self.activation_bits * self.bases * self.is_binary

    @property
    def fp_macs(self) -> int:
        """Full-precision multiply-accumulates."""
        return 0 if self.is_binary else self.macs


@dataclass(frozen=True)
class NetworkCost:
    """Cost of a network for one image: totals over ``layers``, and all its parameters."""

    layers: list[LayerCost]
    params: int

    @property
    def fp_macs(self) -> int:
        """Full-precision multiply-accumulates."""
        return sum(layer.fp_macs for layer in self.layers)

    @property
    def binary_macs(self) -> int:
        """1-bit multiply-accumulates."""
        return sum(layer.binary_macs for layer in self.layers)

    @property
    def ops(self) -> float:
        """``fp_macs + binary_macs / 64``."""
        return self.fp_macs + self.binary_macs / 64

    @property
    def packed_bytes(self) -> float:
        """Bytes with binarized weights packed and the rest in 4 bytes a parameter."""
        dense = self.params - sum(layer.weights for layer in self.layers)
        return 4 * dense + sum(layer.weight_bytes for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Totals, for a result file."""
        return {
            "ops": self.ops,
            "fp_macs": self.fp_macs,
            "binary_macs": self.binary_macs,
            "params": self.params,
            "packed_bytes": self.packed_bytes,
            "fp32_bytes": 4 * self.params,
            "scale_bytes": sum(layer.scale_bytes for layer in self.layers),
        }

    def layers_as_dicts(self) -> list[dict[str, Any]]:
        """One plain dictionary a layer."""
        return [asdict(layer) for layer in self.layers]


def _scale_bytes(layer: BinaryConv2d | BinaryLinear) -> int:
    """Of what follows from the latent weight; what follows from parameters is counted as these."""
    side, weight = layer.weight_quantizer, layer.weight
    if side.bits != 1:
        return 0
    found = side.decompose(weight)
    derived = [part for part, none in ((found.scale, 1), (found.offset, 0)) if (part != none).any()]
    if derived and any(True for _ in side.parameters()):
        of_zeros = side.decompose(torch.zeros_like(weight))
        learned = (of_zeros.scale, of_zeros.offset)
        derived = [part for part in derived if not any(torch.equal(part, p) for p in learned)]
    return sum(4 * _numbers(part, side.bases) for part in derived)


def _numbers(part: Tensor, bases: int) -> int:
    """How many numbers ``part`` is made of: one along an axis on which it does not change.

    Where one of several bases is the code, it holds the codes of the others, with a scale each.
    """
    for axis in range(part.dim()):
        first = part.narrow(axis, 0, 1)
        if torch.equal(part, first.expand_as(part)):
            part = first
    return min(part.numel(), bases) if bases > 1 else part.numel()


def _layer_cost(name: str, layer: nn.Conv2d | nn.Linear, out: Tensor) -> LayerCost:
    macs = out.numel() * layer.weight[0].numel()  # for one image: windows and tokens may come first
    weights = layer.weight.numel()
    if not isinstance(layer, BinaryConv2d | BinaryLinear):
        return LayerCost(name, macs, FP32, FP32, 1, weights, 4 * weights, 0)
    weight, activation = layer.weight_quantizer, layer.activation_quantizer
    return LayerCost(
        name=name,
        macs=macs,
        weight_bits=weight.bits,
        activation_bits=activation.bits,
        bases=weight.bases * activation.bases,
        weights=weights,
        weight_bytes=weights * weight.bits * weight.bases / 8,
        scale_bytes=_scale_bytes(layer),
    )


def training_only_parameters(net: nn.Module) -> list[nn.Parameter]:
    """What the quantizers of ``net`` need in training alone: noise, uncertainties."""
    return [
        parameter
        for side in net.modules()
        if isinstance(side, Side)
        for name, parameter in side.named_parameters()
        if name.split(".")[0] in side.training_only
    ]


@torch.no_grad()
def count_operations(net: nn.Module, input_size: Sequence[int]) -> NetworkCost:
    """Operations, parameters and sizes of ``net`` for one image.

    A layer that is called several times counts its operations each time, and its weights once, as
    do layers that share them.

    Args:
        net: any network; its state is left as it was.
        input_size: (C, H, W) of one image.
    """
    layers: dict[nn.Module, LayerCost] = {}
    stored: set[Tensor] = set()
    names = {module: name for name, module in net.named_modules()}

    def record(module: nn.Module, _: Any, out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        cost = _layer_cost(names[module], module, out)
        if module in layers:  # called again
            cost = replace(layers[module], macs=layers[module].macs + cost.macs)
        elif module.weight in stored:  # another layer's
            cost = replace(cost, weights=0, weight_bytes=0, scale_bytes=0)
        layers[module] = cost
        stored.add(module.weight)

    kinds = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(record) for module in kinds]
    modes = {module: module.training for module in net.modules()}  # parts may be frozen
    like = next(net.parameters())
    try:
        net.eval()(torch.zeros(1, *input_size, device=like.device, dtype=like.dtype))
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    dropped = sum(p.numel() for p in training_only_parameters(net))
    return NetworkCost([*layers.values()], sum(p.numel() for p in net.parameters()) - dropped)
