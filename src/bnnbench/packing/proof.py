"""Whether a packed network computes what the trained one does, layer by layer from equal codes.

Floats that are summed in another order take, now and then, an activation across its threshold, and
behind it everything differs a little: outputs alone would not tell that from a mistake. So each
packed layer is given the codes of the trained network, its own are compared with them, and the
outputs, then of equal codes throughout, have to agree.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.layers import binary_layers
from bnnbench.packing.sides import NotPackable
from bnnbench.runtime.check import flat
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.runtime.linear import PackedLinear

CODES, OUTPUTS = 1e-3, 1e-3  # parts of a layer's codes, and of the largest output, that may differ
LARGE = 1e30


@torch.no_grad()
def prove(
    net: nn.Module, network: PackedNetwork, images: Tensor, tolerance: float = OUTPUTS
) -> None:
    """Raises NotPackable, naming the layer, where ``network`` is not ``net``."""
    known: dict[str, list[Tensor]] = defaultdict(list)
    hooks = []
    for name, layer in binary_layers(net):
        side = layer.activation_quantizer

        def keep(_: nn.Module, __: Any, value: Tensor, name: str = name) -> None:
            known[name].append(value)

        hooks.append(side.register_forward_hook(keep))
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


def _forced(network: PackedNetwork, images: Tensor, known: dict[str, list[Tensor]]) -> Any:
    """The outputs of ``network`` from the codes that are ``known``, layer by layer."""
    hooks = []
    for key, layer in network.layers.items():
        name = network.layer_names[key]

        def force(module: Any, args: tuple[Tensor], name: str = name) -> Tensor:
            own = module.convolution if isinstance(module, PackedLinear) else module
            x, side = args[0], own.activation
            maps = x.reshape(-1, x.shape[-1], 1, 1) if isinstance(module, PackedLinear) else x
            value = known[name].pop(0)
            is_high = (value > side.offset) ^ (side.scale < 0)
            codes = is_high.float().mul(2).sub(1).reshape(maps.shape)
            wrong = float((side.codes(maps) != codes).float().mean())
            if wrong > CODES:
                raise NotPackable(
                    f"{name}: {100 * wrong:.2f} % of its packed codes are others than the trained "
                    "network's: nothing is written"
                )
            if side.flip is not None:
                codes = codes * torch.where(side.flip, -1.0, 1.0).view(-1, 1, 1)
            return (codes * LARGE).reshape(x.shape)

        hooks.append(layer.register_forward_pre_hook(force))
    try:
        return network.interpreted(images)
    finally:
        for hook in hooks:
            hook.remove()
