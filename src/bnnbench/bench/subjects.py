"""What is timed: networks, the 1-bit kinds that differ in work, and their contenders.

Speed does not depend on what weights are, so that these are drawn at random; batch norms are set by
one batch, or activations would run out of the range of floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnnbench.config import build_backbone, load_quantizer
from bnnbench.layers import binary_layers
from bnnbench.metrics import count_operations
from bnnbench.packing.document import Facts
from bnnbench.packing.export import content_of
from bnnbench.packing.work import work_of
from bnnbench.quantizers.base import Identity
from bnnbench.runtime import format
from bnnbench.runtime.graph import PackedNetwork, built

SEED, CALIBRATION = 0, 8  # images that set the batch norms


@dataclass(frozen=True)
class Network:
    """A backbone on images of one size, and the batches that it is timed on by default."""

    backbone: str
    size: int
    batches: tuple[int, ...] = (1, 64)

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of one image."""
        return 3, self.size, self.size


NETWORKS = {
    "resnet20": Network("resnet20", 32),
    "vgg_small": Network("vgg_small", 32),
    "resnet18_32": Network("resnet18", 32),
    "resnet18_224": Network("resnet18", 224),
    "ssd300_resnet18": Network("ssd300_resnet18", 300, (1,)),
}
# Each in its own yaml's structure; of XNOR-Net the paper's K map as well.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "xnor": ("xnor", {}),
    "xnor_k": ("xnor", {"input_scale": True}),
    "birealnet": ("birealnet", {}),
    "reactnet": ("reactnet", {}),
    "adabin": ("adabin", {}),
}


@dataclass
class Subject:
    """A 1-bit network, packed and as it is trained.

    Attributes:
        facts: what a bench file says of it.
        simulation: the network that was packed.
        packed: what its file computes.
    """

    facts: dict[str, Any]
    simulation: nn.Module
    packed: PackedNetwork


def network_of(name: str, quantizer: Any) -> nn.Module:
    """The network of that name, in evaluation, channels-last."""
    torch.manual_seed(SEED)
    network = NETWORKS[name]
    net = build_backbone(network.backbone, quantizer, image_size=network.size)
    return settled(net, network.image).to(memory_format=torch.channels_last)  # pyright: ignore


@torch.no_grad()
def settled(net: nn.Module, image: tuple[int, int, int]) -> nn.Module:
    """``net`` in evaluation, its batch norms set by random images."""
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)  # without it sums of ±1 lie on thresholds: ties
    net.train()(torch.randn(CALIBRATION, *image))
    return net.eval()


def subject(name: str, method: str) -> Subject:
    """A method's network, packed and compared with itself."""
    quantizer, options = METHODS[method]
    net = network_of(name, load_quantizer(quantizer, **options))
    content = content_of(net, NETWORKS[name].image, Facts(f"{name} {method}"), False)
    document, tensors = format.decoded(content, name)
    known = {"bytes": len(content), "work": work_of(document)}
    return Subject(facts_of(name, method, net) | known, net, built(document, tensors, name))


def twin(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network in full precision, in its own structure and of plain layers; its facts."""
    net = network_of(name, load_quantizer("fp32"))
    known = {"bytes": sum(4 * value.numel() for value in net.parameters()), "work": None}
    facts = facts_of(name, "fp32", net) | known
    return plain(net), facts


def facts_of(name: str, method: str, net: Any) -> dict[str, Any]:
    """What a bench file says of a network beside its size."""
    network, spec = NETWORKS[name], net.structure.quantizer
    return {
        "network": name,
        "method": method,
        "backbone": network.backbone,
        "image": list(network.image),
        "quantizer": spec.config,
        "structure": net.structure.as_dict(),
        "bits": spec.bits,
        "operations": count_operations(net, network.image).as_dict(),
    }


def plain(net: nn.Module) -> nn.Module:
    """``net`` with torch's own convolutions where its quantizers do nothing, as int8 wants them."""
    for name, layer in list(binary_layers(net)):
        sides = layer.weight_quantizer, layer.activation_quantizer
        if not isinstance(layer, nn.Conv2d) or not all(type(s) is Identity for s in sides):
            continue
        parent = net.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _convolution(layer))
    return net


def _convolution(layer: nn.Conv2d) -> nn.Conv2d:
    made = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # pyright: ignore
        layer.stride,  # pyright: ignore
        layer.padding,  # pyright: ignore
        layer.dilation,  # pyright: ignore
        layer.groups,
        layer.bias is not None,
    )
    made.load_state_dict(
        {key: value for key, value in layer.state_dict().items() if key in ("weight", "bias")}
    )
    return made.to(memory_format=torch.channels_last).eval()  # pyright: ignore
