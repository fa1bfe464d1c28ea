"""What a parameter is for: recipes give each role its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import lightning as L
from torch import nn

from bnnbench.layers import BinaryConv2d, BinaryLinear

# latent: weights of binarized layers; scale: what their quantizers learn (scales, thresholds);
# norm: batch norm; other: full-precision layers, nonlinearities and what a loss learns
ROLES = ("latent", "scale", "norm", "other")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def parameters_by_role(module: L.LightningModule) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters of a task by role, each once; roles without any are left out."""
    roles: dict[str, list[nn.Parameter]] = {role: [] for role in ROLES}
    seen: set[nn.Parameter] = set()
    for role, parameter in _roles(module):
        if parameter.requires_grad and parameter not in seen:
            seen.add(parameter)
            roles[role].append(parameter)
    return {role: parameters for role, parameters in roles.items() if parameters}


def _roles(module: L.LightningModule) -> Iterator[tuple[str, nn.Parameter]]:
    teacher = getattr(module, "teacher", None)  # a frozen one has nothing trainable
    for net in (module.net, *([teacher.net] if teacher else [])):
        assert isinstance(net, nn.Module)
        yield from _roles_in(net)
    yield from (("other", parameter) for parameter in module.parameters())


def _roles_in(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for layer in net.modules():
        if isinstance(layer, BinaryConv2d | BinaryLinear):
            role = "latent" if layer.weight_quantizer.bits < 32 else "other"
            yield role, cast(nn.Parameter, layer.weight)
            sides = (layer.weight_quantizer, layer.activation_quantizer)
            for side in sides:
                yield from (("scale", parameter) for parameter in side.parameters())
            if layer.output is not None:
                yield from (("scale", parameter) for parameter in layer.output.parameters())
        elif isinstance(layer, _NORMS):
            yield from (("norm", parameter) for parameter in layer.parameters(recurse=False))
    yield from (("other", parameter) for parameter in net.parameters())
