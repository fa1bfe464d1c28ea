"""ResNet-20 and ResNet-18: known parameter counts, structure switches, map sizes."""

import pytest
import torch
from torch import nn

from bnnbench.backbones.resnet import ResNet
from bnnbench.blocks import BasicBlock, PadShortcut
from bnnbench.config import build_backbone


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_fp32_resnet20_has_the_0_27_million_parameters_of_he_et_al():
    stem = 3 * 16 * 9 + 2 * 16
    stages = (
        6 * (16 * 16 * 9 + 2 * 16)
        + (16 * 32 * 9 + 5 * 32 * 32 * 9 + 6 * 2 * 32)
        + (32 * 64 * 9 + 5 * 64 * 64 * 9 + 6 * 2 * 64)
    )
    head = 64 * 10 + 10
    assert stem + stages + head == 269_722
    assert _parameters(build_backbone("resnet20")) == 269_722


@pytest.mark.parametrize(
    ("backbone", "params", "binary_weights"),
    [("resnet20", 271_262, 267_264), ("resnet18", 11_182_826, 10_985_472)],
)
def test_adabin_networks_have_the_released_ones_counts(backbone, params, binary_weights):
    net = build_backbone(backbone, "adabin")
    assert _parameters(net) == params
    blocks = [module for module in net.modules() if isinstance(module, BasicBlock)]
    weights = [conv.weight.numel() for block in blocks for conv in (block.conv1, block.conv2)]
    assert sum(weights) == binary_weights


@pytest.mark.parametrize("size", [8, 28, 32, 33])
@pytest.mark.parametrize(
    ("backbone", "halvings", "width"), [("resnet20", 2, 64), ("resnet18", 3, 512)]
)
def test_each_stage_but_the_first_halves_the_map(backbone, halvings, width, size):
    net = build_backbone(backbone, "bnn", image_size=size)
    maps = net.forward_features(torch.randn(2, 3, size, size))
    for _ in range(halvings):
        size = (size + 1) // 2
    assert maps.shape == (2, width, size, size)


@pytest.mark.parametrize("size", [8, 28])
@pytest.mark.parametrize("shortcut", ["conv", "block"])
@pytest.mark.parametrize("downsample", ["pad", "avgpool_pad", "conv", "avgpool_conv"])
def test_structure_is_apart_from_the_method(downsample, shortcut, size):
    switches = {"downsample": downsample, "shortcut": shortcut, "padding_value": -1}
    net = build_backbone("resnet20", "xnor", image_size=size, nonlinearity="prelu", **switches)
    net(torch.randn(2, 3, size, size)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    blocks = [module for module in net.modules() if isinstance(module, BasicBlock)]
    assert all(block.per_conv == (shortcut == "conv") for block in blocks)
    assert all(block.conv1.padding_value == -1 for block in blocks)
    assert sum(isinstance(m, nn.PReLU) for m in net.modules()) == 19


def test_each_methods_own_structure_is_the_default():
    assert isinstance(build_backbone("resnet20", "adabin").stages[1][0].downsample, PadShortcut)
    names = ("adabin", "birealnet")
    adabin, bireal = (build_backbone("resnet18", name).structure for name in names)
    assert (adabin.nonlinearity, adabin.downsample, adabin.head_norm) == ("maxout", "conv", True)
    assert (bireal.nonlinearity, bireal.downsample, bireal.head_norm) == (
        "identity",
        "avgpool_conv",
        False,
    )


def test_fp32_resnet_is_the_plain_one():
    """Against a network written out with functional calls: conv, norm, relu, add."""
    net = build_backbone("resnet20").eval()
    assert isinstance(net, ResNet)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out = net.bn1(nn.functional.conv2d(x, net.conv1.weight, padding=1)).relu()
        for block in (block for stage in net.stages for block in stage):
            stride = block.conv1.stride[0]
            skip = out[:, :, ::stride, ::stride]
            inner = block.bn1(nn.functional.conv2d(out, block.conv1.weight, None, stride, 1)).relu()
            inner = block.bn2(nn.functional.conv2d(inner, block.conv2.weight, None, 1, 1))
            missing = (inner.shape[1] - skip.shape[1]) // 2
            zeros = torch.zeros(2, missing, *skip.shape[2:])
            out = (inner + torch.cat([zeros, skip, zeros], dim=1)).relu()
        expected = net.fc(out.mean(dim=(2, 3)))
        torch.testing.assert_close(net(x), expected)
