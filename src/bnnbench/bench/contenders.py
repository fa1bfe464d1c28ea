"""The ways to compute a network that are timed against each other."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.bench.timing import Call

EAGER, COMPILED, INT8 = "float, eager", "float, compiled", "int8"
ENGINE = "x86"  # of torch.ao: per shape the better of fbgemm and oneDNN


def images(image: tuple[int, int, int], batch: int) -> Tensor:
    """Random images, channels-last."""
    return torch.randn(batch, *image).contiguous(memory_format=torch.channels_last)


def eager(net: nn.Module, x: Tensor) -> Call:
    """The network as it is, without gradients."""

    def call() -> Any:
        with torch.inference_mode():
            return net(x)

    return call


def compiled(net: nn.Module, x: Tensor) -> Call:
    """By ``torch.compile``, frozen: batch norms folded, weights in the order oneDNN likes.

    Generated loops ask for their threads at run time, so that one compilation serves all.
    """
    from torch._inductor import config

    options = {"freezing": True, "cpp.dynamic_threads": True}
    torch._dynamo.reset()
    with config.patch(options):
        fast = torch.compile(net, dynamic=False)
        with torch.no_grad():
            fast(x)

    def call() -> Any:
        with torch.no_grad():
            return fast(x)

    return call


def int8(net: nn.Module, x: Tensor) -> Call:
    """In int8, as ``quantized`` makes it."""
    return eager(quantized(net, x), x)


def quantized(net: nn.Module, x: Tensor) -> nn.Module:
    """By torch's FX graph mode: batch norms and ReLUs fused into int8 layers, weights by channel.

    Of a torchvision ResNet-18 that gives the same layers as torchvision's quantized one.
    """
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = ENGINE
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # it is deprecated in favour of a package of its own
        observed = prepare_fx(Alone(net), get_default_qconfig_mapping(ENGINE), (x,))
        observed(x)
        return convert_fx(observed)


class Alone(nn.Module):
    """A network whose call takes nothing but images, for a symbolic trace."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        """What the network gives."""
        return self.net(x)
