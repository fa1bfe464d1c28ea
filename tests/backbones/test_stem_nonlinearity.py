"""The nonlinearity behind the stem, and binary 1x1 shortcuts, as switches of residual networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnbench.backbones.structure import Structure
from bnnbench.config import build_backbone, load_quantizer
from bnnbench.layers import BinaryConv2d
from bnnbench.metrics import count_operations
from bnnbench.quantizers import NONLINEARITIES

RESNETS = ("resnet18", "resnet20", "resnet34", "ssd300_resnet18", "ssd300_resnet34")


def stem_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the first stage of a ResNet sees."""
    seen = []
    net.stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(x)
    return seen[0]


@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("same", lambda x: F.prelu(x, torch.full((64,), 0.25))),
        ("identity", lambda x: x),
        ("relu", F.relu),
        ("hardtanh", lambda x: x.clamp(-1, 1)),
    ],
)
def test_stands_behind_the_norm_and_before_the_pool(name, act, size):
    """SiMaN's signs are of centred maps, so that a ReLU may stand there."""
    net = build_backbone("resnet18", "siman", image_size=size, stem_nonlinearity=name).eval()
    x = torch.randn(2, 3, size, size)
    large = size >= 128
    out = F.conv2d(x, net.conv1.weight, None, 2 if large else 1, 3 if large else 1)
    expected = act(F.batch_norm(out, torch.zeros(64), torch.ones(64)))
    if large:
        expected = F.max_pool2d(expected, 3, 2, 1)
    torch.testing.assert_close(stem_of(net, x), expected)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_blocks_keep_theirs(name):
    switches = {"nonlinearity": "prelu", "stem_nonlinearity": name}
    net = build_backbone("resnet20", "dorefa", **switches)
    assert type(net.act1) is type(NONLINEARITIES[name](16))
    assert sum(isinstance(m, nn.PReLU) for m in net.stages.modules()) == 18


@pytest.mark.parametrize("backbone", RESNETS)
def test_every_resnet_has_the_switch_and_none_by_default(backbone):
    size = 64 if "ssd" in backbone else 32
    usual, named, none = (
        build_backbone(backbone, "reactnet", image_size=size, **switch)
        for switch in ({}, {"stem_nonlinearity": "rprelu"}, {"stem_nonlinearity": "identity"})
    )
    sizes = [sum(p.numel() for p in net.parameters()) for net in (usual, named, none)]
    width = 16 if backbone == "resnet20" else 64
    assert sizes == [sizes[0], sizes[0], sizes[0] - 3 * width]
    assert list(usual.state_dict()) == list(named.state_dict())
    assert "stem_nonlinearity" not in usual.structure.as_dict()  # as results from before have it
    assert none.structure.as_dict()["stem_nonlinearity"] == "identity"


@pytest.mark.parametrize("backbone", ["vgg_small", "vgg16", "wrn22", "ssd300_vgg16"])
def test_networks_without_it_have_no_such_key(backbone):
    with pytest.raises(ValueError, match="no such key"):
        build_backbone(backbone, "bnn", stem_nonlinearity="relu")


@pytest.mark.parametrize(
    ("quantizer", "switches", "message"),
    [
        ("xnor", {"stem_nonlinearity": "relu"}, r"backbone\.stem_nonlinearity=relu before .*=xnor"),
        ("xnor", {"stem_nonlinearity": "none"}, r"stem_nonlinearity='none': .*'same', 'identity'"),
        ("abbnn", {"stem_nonlinearity": "prelu"}, "behind a stem without norm there is none"),
        ("abbnn", {"downsample": "binary_conv"}, "choose conv or avgpool_conv with norm=none"),
    ],
)
def test_what_makes_no_sense_is_refused(quantizer, switches, message):
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet20", quantizer, **switches)


def test_a_norm_between_makes_a_relu_possible():
    """Real-to-Binary's blocks begin with a batch norm."""
    net = build_backbone("resnet20", "r2b", stem_nonlinearity="relu")
    assert isinstance(net.act1, nn.ReLU)
    with pytest.raises(ValueError, match=r"backbone\.nonlinearity=relu"):
        build_backbone("resnet20", "r2b", nonlinearity="relu")


def test_binary_shortcuts_are_the_methods_own_strided_convolution():
    structure = Structure(load_quantizer("siman"), "hardtanh", "block", "binary_conv")
    shortcut, x = structure.shortcut_layer(4, 8, 2).double(), torch.randn(2, 4, 6, 6).double()
    conv = shortcut.conv
    assert isinstance(conv, BinaryConv2d)
    weight, codes = conv.weight_quantizer(conv.weight), conv.activation_quantizer(x)
    out = F.conv2d(codes, weight, stride=2) * conv.output.scale.view(-1, 1, 1)
    torch.testing.assert_close(shortcut(x), F.batch_norm(out, None, None, training=True))


def test_binary_shortcuts_cost_binary_operations():
    real, binary = (
        count_operations(build_backbone("resnet18", "bnn", downsample=name), (3, 32, 32))
        for name in ("conv", "binary_conv")
    )
    ones = sum(o * i * s**2 for o, i, s in ((128, 64, 16), (256, 128, 8), (512, 256, 4)))
    assert real.fp_macs - binary.fp_macs == binary.binary_macs - real.binary_macs == ones
    assert binary.params == real.params
