"""Whole-number thresholds decide as the trained network's own operations do, for every sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnnbench
from bnnbench.packing.document import packed
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.graph import built
from bnnbench.runtime.selftest import on

CHANNELS, SIZE = 32, (3, 9, 9)


def plain(method: str, *between: nn.Module, **options) -> Any:
    """Two binary layers with nothing but channel-wise operations between them."""
    torch.manual_seed(0)
    spec = bnnbench.load_quantizer(method)
    norm = nn.BatchNorm2d(CHANNELS)
    first, second = (spec.conv2d(CHANNELS, CHANNELS, 3, bias=False, **options) for _ in "12")
    net = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), first, norm, *between, second)
    with torch.no_grad():
        net(torch.randn(4, *SIZE))  # sides that begin with their first batch
    nn.init.normal_(norm.weight)
    norm.weight.data[:3] = 0  # the sum does not matter: one sign for all
    nn.init.normal_(norm.bias, std=3)
    norm.running_mean.normal_(0, 9)  # pyright: ignore
    norm.running_var.uniform_(1, 99)  # pyright: ignore
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("path", ["float", "kernel"])
@pytest.mark.parametrize("method", ["bnn", "xnor", "birealnet"])
@pytest.mark.parametrize("between", ["norm", "prelu", "hardtanh"])
def test_every_attainable_sum(method: str, between: str, path: str) -> None:
    more = {"norm": [], "prelu": [nn.PReLU(CHANNELS)], "hardtanh": [nn.Hardtanh()]}[between]
    net = plain(method, *more, padding=1)
    network = built(*packed(net, SIZE), "net")
    first, second = network.layers.values()
    assert isinstance(first, PackedConv2d)
    assert isinstance(second, PackedConv2d)
    for layer in (first, second) if path == "float" else ():
        on(None, layer)
    assert not any(op.op in ("affine", "prelu", "hardtanh") for op in network.operations)
    assert second.activation.threshold.frac().nan_to_num().eq(0).all()
    (step,) = [s for s in network.plan.steps if s.group.next and s.group.epilogue is not None]
    assert not step.group.is_kept  # the sums never leave the kernel

    most = 9 * CHANNELS
    sums = torch.arange(-most, most + 1.0).view(1, 1, -1, 1).expand(1, CHANNELS, -1, 1)
    side, latent = net[1].weight_quantizer, net[1].weight
    scale = side.decompose(latent).scale.expand(CHANNELS, 1, 1, 1).flatten()
    values = net[1].activation_quantizer(torch.tensor([[[[-9.0, 9.0]]]])).abs().max()
    y = sums * (values * scale).view(1, -1, 1, 1)
    for layer in list(net)[2:-1]:
        y = layer(y.contiguous())
    expected = net[-1].activation_quantizer(y) > 0
    assert torch.equal(decided(second, sums), expected)
    assert len({*expected[0, :, 0, 0].tolist()}) == 2  # rising and falling channels


def decided(layer: PackedConv2d, sums: Tensor) -> Tensor:
    """The codes that a layer's own path makes of these sums, read back one channel at a time."""
    if layer.engine[0] is None:
        return layer.activation.codes(sums) > 0
    found = []
    for channel in range(CHANNELS):  # two filters that differ in one channel differ by its code
        both = torch.ones(2, CHANNELS, 1, 1)
        both[1, channel] = -1
        probe = PackedConv2d(pack_bits(both), both.shape, activation=layer.activation)
        y = probe(sums.contiguous())
        found.append(y[:, :1] > y[:, 1:])
    return torch.cat(found, 1)


@torch.no_grad()
def test_a_border_that_is_no_sum_of_signs_has_no_whole_threshold() -> None:
    """DSQ's values are a width times a sign: around them -1 is a third level, sums no integers."""
    net = plain("dsq", padding=1, padding_value=-1)
    for layer in (net[1], net[-1]):
        layer.activation_quantizer.lower.data.fill_(-0.7)
        layer.activation_quantizer.upper.data.fill_(0.7)
    network = built(*packed(net, SIZE), "net")
    assert len(network.layers) == 2
    x = torch.randn(8, *SIZE)
    torch.testing.assert_close(network(x), net(x), rtol=1e-4, atol=1e-4)
