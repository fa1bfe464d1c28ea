"""Binary layers: an ordinary convolution or linear layer with a quantizer on either side.

``out = output(conv(activation_quantizer(x), weight_quantizer(weight)), x)``. All convolution
arguments are honoured; ``padding_value`` says what stands outside the binarized map (0 is a third
level of most methods, and -1 or +1 one of the values of methods without offsets).
``keeps_quantized`` keeps each forward's quantized weight in ``quantized`` (detached), so that a
loss over the codes quantizes nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.base import Identity, OutputOp, Schedule, Side


class BinaryConv2d(nn.Conv2d):
    """``nn.Conv2d`` over quantized activations and weights; ``weight`` is the latent weight."""

    weight_quantizer: Side
    activation_quantizer: Side
    output: OutputOp | None
    keeps_quantized: bool = False
    quantized: Tensor

    def __init__(
        self, *args: Any, quantizer: QuantizerSpec, padding_value: float = 0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value={padding_value}: choose -1, 0 or +1")
        if padding_value and (self.padding_mode != "zeros" or isinstance(self.padding, str)):
            raise ValueError("padding_value needs padding in pixels and padding_mode='zeros'")
        self.padding_value = padding_value
        quantizer.attach(self, self.in_channels)

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (N, C, H, W) to (N, O, H', W')."""
        x, weight = self.activation_quantizer(input), quantized_weight(self)
        if self.padding_value:
            ph, pw = self.padding
            x = F.pad(x, [int(pw), int(pw), int(ph), int(ph)], value=self.padding_value)
            out = F.conv2d(x, weight, self.bias, self.stride, 0, self.dilation, self.groups)
        elif taps := _single_window(self, x):
            weight = _Taps.apply(weight, taps)  # the others meet padding alone
            out = F.conv2d(x, weight, self.bias, self.stride, 0, 1, self.groups)
        else:
            out = self._conv_forward(x, weight, self.bias)
        return out if self.output is None else self.output(out, input)


class _Taps(torch.autograd.Function):
    """``weight[taps]``, whose gradient keeps the memory format of the weight."""

    @staticmethod
    def forward(ctx, weight: Tensor, taps: tuple[slice, ...]) -> Tensor:
        ctx.weight, ctx.taps = weight.detach(), taps
        return weight[taps]

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        whole = torch.zeros_like(ctx.weight)
        whole[ctx.taps] = grad
        return whole, None


def _single_window(conv: nn.Conv2d, x: Tensor) -> tuple[slice, ...] | None:
    """The taps of ``conv`` that meet the map ``x`` where it is one window with zeros around it.

    On a map of one pixel that is one tap of nine, and convolving with it alone is the same sum.
    """
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.dilation != (1, 1):
        return None
    if torch.compiler.is_exporting():  # a weight of all taps is what graphs of others know
        return None
    taps = [slice(None), slice(None)]
    for size, kernel, stride, pad in zip(
        x.shape[-2:], conv.kernel_size, conv.stride, conv.padding, strict=True
    ):
        if not 0 < pad < kernel or not 0 <= size + 2 * pad - kernel < stride:
            return None
        taps.append(slice(pad, pad + size))
    return tuple(taps)


class BinaryLinear(nn.Linear):
    """``nn.Linear`` over quantized activations and weights; ``weight`` is the latent weight."""

    weight_quantizer: Side
    activation_quantizer: Side
    output: OutputOp | None
    keeps_quantized: bool = False
    quantized: Tensor

    def __init__(self, *args: Any, quantizer: QuantizerSpec, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        quantizer.attach(self, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (N, C) to (N, O)."""
        x, weight = self.activation_quantizer(input), quantized_weight(self)
        out = F.linear(x, weight, self.bias)
        return out if self.output is None else self.output(out, input)


BinaryLayer = BinaryConv2d | BinaryLinear


def quantized_weight(layer: BinaryLayer) -> Tensor:
    """The quantized weight of ``layer``, kept (detached) where a loss term asked for it."""
    weight = layer.weight_quantizer(layer.weight)
    if layer.keeps_quantized:
        layer.quantized = weight.detach()
    return weight


@dataclass(frozen=True)
class QuantizerSpec:
    """A method: how to build its two sides, and the block it was published with.

    Attributes:
        name: the option of the quantizer group.
        weight: builds the weight side from the weight's shape.
        activation: builds the activation side from the number of input channels.
        output: builds the op after the convolution from the layer, or None; linear layers have it
            where its class says ``for_linear``.
        config: the whole resolved yaml (``shortcut``, ``nonlinearity``, ...).
    """

    name: str
    weight: Callable[[tuple[int, ...]], Side]
    activation: Callable[[int], Side]
    output: Callable[[Any], OutputOp | None] | None
    config: dict[str, Any]

    @cached_property
    def example(self) -> BinaryConv2d:
        """A convolution of one weight, to ask what its sides say; it draws no random number."""
        with torch.random.fork_rng(devices=[]):
            return self.conv2d(1, 1, 1)

    @property
    def bits(self) -> dict[str, int]:
        """Bits of weights (w) and activations (a), and below 32 of gradients (g) and errors (e)."""
        weight, activation = self.example.weight_quantizer, self.example.activation_quantizer
        found = {
            "g": (self.example.output or weight).gradient_bits,
            "e": activation.error_bits,
        }
        below = {side: bits for side, bits in found.items() if bits < 32}
        return {"w": weight.bits, "a": activation.bits, **below}

    def attach(self, layer: nn.Conv2d | nn.Linear, channels: int) -> None:
        """Give ``layer`` the quantizers of both sides and the output op."""
        layer.weight_quantizer = self.weight(tuple(layer.weight.shape))
        layer.activation_quantizer = self.activation(channels)
        wanted = isinstance(layer, nn.Conv2d) or _for_linear(self.output)
        op = self.output(layer) if self.output and wanted else None
        if not isinstance(op, OutputOp | None):  # not after a training, when a result asks its bits
            raise TypeError(f"quantizer={self.name}: {type(op).__name__} must be an OutputOp")
        layer.output = op  # pyright: ignore[reportArgumentType]

    def conv2d(self, *args: Any, **kwargs: Any) -> BinaryConv2d:
        """A quantized convolution: the arguments of ``nn.Conv2d``, and ``padding_value``."""
        return BinaryConv2d(*args, quantizer=self, **kwargs)

    def linear(self, *args: Any, **kwargs: Any) -> BinaryLinear:
        """A quantized linear layer: the arguments of ``nn.Linear``."""
        return BinaryLinear(*args, quantizer=self, **kwargs)

    def weight_only(self) -> QuantizerSpec:
        """The same method with real activations, for a binarized first layer."""
        return QuantizerSpec(f"{self.name}-weight", self.weight, Identity, None, self.config)


def _for_linear(output: Any) -> bool:
    """A function that builds an op builds one for convolutions."""
    op = output.func if isinstance(output, partial) else output
    return isinstance(op, type) and issubclass(op, OutputOp) and op.for_linear


def binary_layers(net: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """Names and modules of the quantized layers of ``net``, in order."""
    for name, module in net.named_modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            yield name, module


def set_progress(net: nn.Module, epoch: float, max_epochs: float) -> None:
    """Move every scheduled quantizer state of ``net`` to ``epoch`` of ``max_epochs``.

    Runs limited by steps pass the equivalent fraction of their estimated total steps.
    """
    if not 0 <= epoch <= max_epochs or max_epochs <= 0:
        raise ValueError(f"epoch {epoch} is not within 0 and max_epochs={max_epochs}")
    for module in net.modules():
        if isinstance(module, Schedule):
            module.set_progress(epoch / max_epochs)
