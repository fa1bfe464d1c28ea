"""Networks without batch norms against explicit formulas, and where they exist."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.backbones.blocks import BasicBlock
from bnnbench.backbones.norm_free import NormFreeBlock, expected_variances
from bnnbench.backbones.structure import StandardizedConv2d
from bnnbench.config import build_backbone, load_quantizer, options
from bnnbench.layers import BinaryConv2d
from bnnbench.quantizers.base import Identity


def _signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def _standardized(weight: Tensor) -> Tensor:
    rows = [row - row.mean() for row in weight]
    rows = [row / (row.std(correction=0) + 1e-5) / math.sqrt(row.numel()) for row in rows]
    return torch.stack(rows)


def _binary(weight: Tensor) -> Tensor:
    v = _standardized(weight)
    return torch.stack([row.abs().mean() * _signs(row) for row in v])


def _act(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x / 8)


def test_expected_variances():
    """The second stage starts with what the first ends with, then from 1 again."""
    found = list(expected_variances((2, 1, 1)))
    s = 0.25**2
    assert found == [(1, 1), (1 + s, 1 + 2 * s), (1 + 3 * s, 1), (1 + s, 1)]


@pytest.mark.parametrize(("channels", "stride"), [(16, 1), (32, 2)])
def test_block_is_scale_quantize_conv_scale_add_act(channels, stride):
    structure = build_backbone("resnet18", "abbnn").structure
    torch.manual_seed(0)
    block = NormFreeBlock(16, channels, stride, structure, (1.5, 2.0)).double()
    for conv in (block.conv1, block.conv2):
        conv.activation_quantizer.threshold.data.uniform_(-0.5, 0.5)
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)

    def conv(value: Tensor, layer: nn.Conv2d, variance: float, step: int) -> Tensor:
        threshold = layer.activation_quantizer.threshold.view(-1, 1, 1)
        code = _signs(value / math.sqrt(variance) - threshold)
        return 0.25 * F.conv2d(code, _binary(layer.weight), stride=step, padding=1)

    skip = x if stride == 1 else F.conv2d(F.avg_pool2d(x, 2), _binary(block.downsample.conv.weight))
    middle = _act(conv(x, block.conv1, 1.5, stride) + skip)
    expected = _act(conv(middle, block.conv2, 2.0, 1) + middle)
    torch.testing.assert_close(block(x), expected)


def test_stem_is_a_standardised_convolution_and_nothing_else():
    net = build_backbone("resnet20", "abbnn", image_size=16).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    net.conv1.gain.data.uniform_(0.5, 1.5)
    expected = F.conv2d(x, net.conv1.gain * _standardized(net.conv1.weight), padding=1)
    torch.testing.assert_close(net.act1(net.bn1(net.conv1(x))), expected)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet20", "resnet34"])
def test_a_resnet_without_norms_has_none_and_its_blocks_their_variances(backbone):
    net = build_backbone(backbone, "abbnn", image_size=32)
    assert not any(
        "Norm" in type(m).__name__ and m.__module__ != "bnnbench.backbones.norm_free"
        for m in net.modules()
    )
    blocks = [m for m in net.modules() if isinstance(m, NormFreeBlock)]
    depths = [len(stage) for stage in net.stages]
    expected = [[v**-0.5 for v in pair] for pair in expected_variances(depths)]
    assert [block.betas for block in blocks] == expected
    shortcuts = [m for n, m in net.named_modules() if n.endswith("downsample.conv")]
    assert len(shortcuts) == (0 if backbone == "resnet20" else 3)
    assert all(isinstance(conv, BinaryConv2d) for conv in shortcuts)
    assert all(isinstance(conv.activation_quantizer, Identity) for conv in shortcuts)


def test_signals_keep_their_scale():
    """Without norms and without training, the last map is neither gone nor exploded."""
    torch.manual_seed(0)
    maps = build_backbone("resnet34", "abbnn").forward_maps(torch.randn(8, 3, 32, 32))
    assert all(0.1 < float(m.detach().std()) < 10 for m in maps)


def test_the_method_with_batch_norms_is_an_ordinary_network():
    quantizer = load_quantizer("abbnn", norm="batch")
    for backbone in ("resnet20", "vgg_small", "wrn22"):
        net = build_backbone(backbone, quantizer, image_size=8)
        assert not any(isinstance(m, NormFreeBlock | StandardizedConv2d) for m in net.modules())
        net(torch.randn(2, 3, 8, 8)).sum().backward()
    assert any(isinstance(m, BasicBlock) for m in build_backbone("resnet20", quantizer).modules())


def test_another_method_without_norms_says_so_in_its_config():
    assert [q for q in options("quantizer") if "norm" in load_quantizer(q).config] == [
        "abbnn",
        "wage",
    ]


@pytest.mark.parametrize(
    "backbone", ["vgg_small", "vgg16", "wrn22", "ssd300_resnet18", "ssd300_vgg16"]
)
def test_other_backbones_refuse_a_method_without_norms(backbone):
    with pytest.raises(ValueError, match=r"norm=none, this backbone .*set quantizer\.norm=batch"):
        build_backbone(backbone, "abbnn", image_size=64)


def test_what_makes_no_sense_without_norms_is_refused():
    with pytest.raises(ValueError, match="shortcut=block: choose conv with norm=none"):
        build_backbone("resnet20", "abbnn", shortcut="block")
    with pytest.raises(ValueError, match="norm=typo"):
        build_backbone("resnet20", load_quantizer("abbnn", norm="typo"))
