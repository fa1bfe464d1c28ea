"""VGG-small: parameter count by hand, order of the layers, map sizes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import bnnbench
from bnnbench.config import build_backbone
from bnnbench.layers import BinaryConv2d, BinaryLinear
from bnnbench.quantizers import Hardtanh


def test_parameter_count():
    widths = [3, 128, 128, 256, 256, 512, 512]
    convs = sum(9 * i * o for i, o in pairwise(widths))
    norms, head = 2 * sum(widths[1:]), 8192 * 10 + 10
    net = build_backbone("vgg_small", "bnn")
    assert sum(parameter.numel() for parameter in net.parameters()) == convs + norms + head


def test_pool_stands_before_the_norm_and_the_stem_is_full_precision():
    net = build_backbone("vgg_small", "bnn")
    kinds = [type(module) for module in net.features]
    plain = [BinaryConv2d, nn.BatchNorm2d, Hardtanh]
    pooled = [BinaryConv2d, nn.MaxPool2d, nn.BatchNorm2d, Hardtanh]
    assert kinds == [nn.Conv2d, *plain[1:], *pooled, *(plain + pooled) * 2]


@pytest.mark.parametrize(("size", "side"), [(8, 1), (15, 1), (28, 3), (32, 4)])
def test_three_pools(size, side):
    net = build_backbone("vgg_small", "bnn", image_size=size)
    maps = net.forward_features(torch.randn(2, 3, size, size))
    assert maps.shape == (2, 512, side, side)
    assert net.num_features == 512 * side * side


def test_it_has_no_shortcuts_to_switch():
    with pytest.raises(ValueError, match=r"vgg_small: no such key .*shortcut.*valid.*nonlinearity"):
        build_backbone("vgg_small", shortcut="conv")


def test_vgg7_has_a_hidden_layer_and_wages_has_nothing_else():
    net = build_backbone("vgg7", "wage")
    widths = [3, 128, 128, 256, 256, 512, 512]
    convs = sum(9 * i * o for i, o in pairwise(widths))
    linears = 8192 * 1024 + 1024 * 10
    assert sum(parameter.numel() for parameter in net.parameters()) == convs + linears
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules())
    assert [type(module) for module in net.hint_modules()] == [nn.ReLU, nn.ReLU]


def test_vgg7_of_other_methods_has_norms():
    hidden = build_backbone("vgg7", "bnn").hidden
    assert isinstance(hidden.fc, BinaryLinear)
    assert isinstance(hidden.bn, nn.BatchNorm2d)


def test_a_width_may_be_written_as_a_whole_number() -> None:
    spec = bnnbench.load_quantizer("xnor")
    one, same = (build_backbone("vgg_small", quantizer=spec, width=width) for width in (1, 1.0))
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in (one, same)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match=r"width=0\.3"):
        build_backbone("vgg_small", quantizer=spec, width=0.3)
