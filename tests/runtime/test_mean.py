"""Mean magnitudes of windows, as XNOR-Net scales by, against torch's mean and convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.config import load_quantizer
from bnnbench.packing.document import Facts
from bnnbench.packing.export import content_of
from bnnbench.runtime import format
from bnnbench.runtime.epilogue import Activation, Epilogue
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.mean import WindowMean

# Channels, size of the map, size of the window, and options.
SHAPES = [
    (16, (9, 8), (3, 3), {"padding": 1}),
    (20, (11, 7), (3, 5), {"padding": (2, 1), "stride": (1, 3)}),
    (3, (9, 9), (1, 1), {"stride": 2}),
    (130, (8, 13), (3, 2), {"padding": "same", "dilation": 2}),
    (64, (6, 6), (5, 5), {"padding": 4, "dilation": (1, 2), "stride": 2}),
    (1, (4, 40), (4, 4), {}),
]


@pytest.mark.parametrize(("channels", "size", "window", "options"), SHAPES)
def test_it_is_torchs_mean_and_convolution(
    path: str, channels: int, size, window, options: dict, place
) -> None:
    torch.manual_seed(0)
    mean, x = place(path, WindowMean(window, 0.3, **options)), torch.randn(3, channels, *size)
    y = mean(x)
    box = torch.full((1, 1, *window), 0.3, dtype=torch.float64)
    expected = F.conv2d(x.double().abs().mean(1, keepdim=True), box, **options)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(y, mean.in_torch(x))


def test_threads_give_equal_bits(kernel_path: str, place) -> None:
    mean, x = place(kernel_path, WindowMean((3, 3), 1 / 9, 1, 1)), torch.randn(3, 68, 31, 29)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(mean(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_map_smaller_than_the_window_is_refused(path: str, place) -> None:
    with pytest.raises(ValueError, match="4 pixels is smaller than the window of 5"):
        place(path, WindowMean((3, 3), 1.0, dilation=2))(torch.randn(1, 4, 9, 4))


def test_a_layer_times_a_factor_is_its_parts(path: str, layer_of) -> None:
    torch.manual_seed(0)
    layer, read = layer_of(path, 24, 16, padding=1, scale=0.1), layer_of(path, 5, 24)
    before, after = Activation(0.5, 0.5, 0.25, -1.0, 1.0), Activation(1.0, torch.rand(24))
    x, add, factor = (torch.randn(2, count, 9, 11) for count in (16, 24, 1))
    epilogue = Epilogue(before=before, after=after)
    y, (codes,) = layer.fused(x, epilogue=epilogue, add=add, factor=factor, next=(read,))
    assert torch.equal(y, after(before(layer(x) * factor) + add))
    assert torch.equal(read(codes), read(y))
    _, (alone,) = layer.fused(
        x, epilogue=epilogue, add=add, factor=factor, next=(read,), keep=False
    )
    assert torch.equal(read(alone), read(y))
    with pytest.raises(ValueError, match="expected 1 channels"):
        layer.fused(x, factor=add)


class Scaled(nn.Module):
    """A layer of XNOR-Net with its factor, in a block of one structure.

    One alone: behind it values lie within a rounding of the next one's thresholds.
    """

    def __init__(self, structure: str) -> None:
        super().__init__()
        spec = load_quantizer("xnor", input_scale=True)
        self.layer, self.norm = spec.conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.structure, self.prelu = structure, nn.PReLU(16)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, 16, H, W), same shape out."""
        y = self.norm(self.layer(x))
        y = y + x if self.structure == "sum" else y
        return F.hardtanh(y) if self.structure == "hardtanh" else self.prelu(y)


def packed(net: nn.Module) -> PackedNetwork:
    content = content_of(net, (16, 9, 7), Facts("scaled"), False)
    return built(*format.decoded(content, "scaled"), "scaled")


# Steps: a mean and a layer; a PReLU behind a shifted batch norm is one by itself.
@pytest.mark.parametrize(("structure", "steps"), [("hardtanh", 2), ("sum", 2), ("plain", 3)])
def test_a_network_computes_the_factor_with_its_layers(structure: str, steps: int) -> None:
    torch.manual_seed(0)
    net, x = Scaled(structure), torch.randn(4, 16, 9, 7)
    nn.init.normal_(net.norm.weight)
    nn.init.normal_(net.norm.bias)
    net.train()(x)
    made = packed(net.eval())
    with torch.no_grad():
        torch.testing.assert_close(made(x), net(x), rtol=1e-5, atol=1e-5)
    groups = [step.group for step in made.plan.steps]
    assert len(groups) == steps, [group.numbers for group in groups]
    assert sum(group.factor is not None for group in groups) == 1


def test_another_convolution_of_magnitudes_is_left_alone() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("box", torch.rand(1, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x.abs().mean(1, keepdim=True), self.box, None, 1, 1)

    net, x = Uneven().eval(), torch.randn(2, 16, 9, 7)
    torch.testing.assert_close(packed(net)(x), net(x), rtol=1e-5, atol=1e-6)
