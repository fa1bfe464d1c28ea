"""Whether a packed network computes what the trained one does, layer by layer from equal codes.

Floats that are summed in another order take, now and then, an activation across its threshold, and
behind it everything differs a little: outputs alone would not tell that from a mistake. So each
packed layer is given the codes of the trained network, its own are compared with them, and the
outputs, then of equal codes throughout, have to agree. An activation that lies on its threshold, as
sums of signs without a batch norm behind them do often, has a code by nothing but the order in
which it was summed: these ties may differ.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from bnnbench.layers import binary_layers
from bnnbench.packing.sides import NotPackable, cut
from bnnbench.quantizers.base import Side
from bnnbench.runtime.check import flat
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.runtime.linear import PackedLinear
from bnnbench.runtime.ops import over_axis

CODES, OUTPUTS = 1e-4, 1e-3  # parts of a layer's codes, and of the largest output, that may differ
TIE = 1e-5  # of the largest activation: what is as close to its threshold lies on it
HALF_TIE, HALF_OUTPUTS = 1e-3, 0.05  # where float layers have eleven bits of precision
TOLD = 1e-3  # part of a layer's codes: of more ties that differ somebody is told
LARGE = 1e30
Known = dict[str, list[tuple[Tensor, Tensor]]]  # of each layer its activations' values, and ties


@torch.no_grad()
def prove(net: nn.Module, network: PackedNetwork, images: Tensor, half: bool = False) -> None:
    """Raises NotPackable, naming the layer, where ``network`` is not ``net``.

    Args:
        net: the trained network.
        network: the packed one.
        images: that both see.
        half: whether float layers of ``network`` are rounded to half precision.
    """
    tie, tolerance = (HALF_TIE, HALF_OUTPUTS) if half else (TIE, OUTPUTS)
    known: Known = defaultdict(list)
    hooks = []
    packed = set(network.layer_names.values())
    for name, layer in binary_layers(net):

        def keep(side: nn.Module, args: tuple[Tensor], value: Tensor, name: str = name) -> None:
            known[name].append((value, distance(side, args[0]) <= tie))  # pyright: ignore

        if name in packed:
            hooks.append(layer.activation_quantizer.register_forward_hook(keep))
    try:
        expected = flat(net(images))
    finally:
        for hook in hooks:
            hook.remove()
    found = flat(_forced(network, images, known))
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not difference <= tolerance:
        raise NotPackable(
            f"the packed network's outputs differ by {difference:.1e} of the largest from equal "
            "codes: nothing is written"
        )


def distance(side: Side, x: Tensor) -> Tensor:
    """How far a side's inputs ``x`` are from their thresholds, over the largest of them."""
    found = cut(side)
    assert found is not None  # its layer is packed
    x = x if found.compared is None else found.compared(x)
    edge = over_axis(found.edge.flatten(), 1 if x.dim() == 4 else -1)
    return (x - edge).abs() / x.abs().max().clamp(min=1e-30)


def is_high(binarizer: Binarizer, values: Tensor) -> Tensor:
    """Of values that a side gave, whether they stand for an activation that reaches its threshold.

    ``binarizer`` is the packed layer's, in which a channel that is turned round is so only later.
    """
    return (values > binarizer.offset) ^ (binarizer.scale < 0)


def _forced(network: PackedNetwork, images: Tensor, known: Known) -> Any:
    """The outputs of ``network`` from the codes that are ``known``, layer by layer."""
    hooks = []
    told: list[str] = []
    for key, layer in network.layers.items():
        name = network.layer_names[key]

        def force(module: Any, args: tuple[Tensor], name: str = name) -> Tensor:
            own = module.convolution if isinstance(module, PackedLinear) else module
            x, side = args[0], own.activation
            maps = x.reshape(-1, x.shape[-1], 1, 1) if isinstance(module, PackedLinear) else x
            value, tied = known[name].pop(0)
            codes = is_high(side, value).float().mul(2).sub(1).reshape(maps.shape)
            differs = side.codes(maps) != codes
            wrong = float((differs & ~tied.reshape(maps.shape)).float().mean())
            if wrong > CODES:
                raise NotPackable(
                    f"{name}: {100 * wrong:.2f} % of its packed codes are others than the trained "
                    "network's: nothing is written"
                )
            if float(differs.float().mean()) > TOLD:
                told.append(name)
            if side.flip is not None:
                codes = codes * torch.where(side.flip, -1.0, 1.0).view(-1, 1, 1)
            return (codes * LARGE).reshape(x.shape)

        hooks.append(layer.register_forward_pre_hook(force))
    try:
        outputs = network.interpreted(images)
    finally:
        for hook in hooks:
            hook.remove()
    if told:
        rank_zero_warn(
            f"{', '.join(told[:3])}{f' and {len(told) - 3} more layers' if told[3:] else ''}: many "
            "activations lie on their thresholds, where codes follow from the order of sums: the "
            "packed network answers a little differently there, as another machine would; a batch "
            "norm or a bias before these layers prevents it"
        )
    return outputs
