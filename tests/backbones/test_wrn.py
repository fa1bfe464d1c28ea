"""Wide ResNets: the sizes BONN prints, the order of a pre-activation block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnnbench
from bnnbench.backbones.blocks import PreActivationBlock
from bnnbench.layers import binary_layers

WIDE = [64, 64, 128, 256]


def without_norms(net: nn.Module) -> int:
    kinds = (nn.Conv2d, nn.Linear)
    return sum(p.numel() for m in net.modules() if isinstance(m, kinds) for p in m.parameters())


@pytest.mark.parametrize(
    ("backbone", "widths", "weights", "millions"),
    [
        ("wrn22", [16, 16, 32, 64], 270_906, 0.27),
        ("wrn22", WIDE, 4_321_482, 4.33),
        ("wrn40", [16, 16, 32, 64], 561_210, 0.56),
    ],
)
def test_sizes(backbone: str, widths: list[int], weights: int, millions: float) -> None:
    """BONN, Table 3; the depth-40 figure counted by hand."""
    net = bnnbench.build_backbone(backbone, quantizer="fp32", widths=widths)
    assert without_norms(net) == weights
    total = sum(p.numel() for p in net.parameters())
    assert round(total / 1e6, 2) == pytest.approx(millions, abs=0.005)


def test_depth_40_by_hand() -> None:
    stem, shortcuts, head = 3 * 16 * 9, 16 * 32 + 32 * 64, 64 * 10 + 10
    stages = [12 * 16 * 16 * 9, (16 * 32 + 11 * 32 * 32) * 9, (32 * 64 + 11 * 64 * 64) * 9]
    assert stem + shortcuts + head + sum(stages) == 561_210


@pytest.mark.parametrize(("backbone", "layers"), [("wrn22", 18), ("wrn40", 36)])
def test_stem_1x1_and_classifier_stay_real(backbone: str, layers: int) -> None:
    net = bnnbench.build_backbone(backbone, quantizer="bonn")
    names = [name for name, _ in binary_layers(net)]
    assert len(names) == layers
    assert all(name.endswith(("conv1", "conv2")) and "stages" in name for name in names)


def block(quantizer: str, **overrides: str) -> PreActivationBlock:
    net = bnnbench.build_backbone("wrn22", quantizer=quantizer, **overrides)
    found = next(module for module in net.modules() if isinstance(module, PreActivationBlock))
    return found.eval()


def test_full_precision_block_is_the_wide_resnets() -> None:
    """x + conv(relu(bn(conv(relu(bn(x))))))."""
    torch.manual_seed(0)
    b, x = block("fp32"), torch.randn(2, 16, 8, 8)
    inner = b.conv1(torch.relu(b.bn1(x)))
    torch.testing.assert_close(b(x), x + b.conv2(torch.relu(b.bn2(inner))))


def test_learned_nonlinearities_stand_between_convolution_and_add() -> None:
    """BONN, Fig. 2, with a shortcut around each convolution."""
    torch.manual_seed(0)
    b, x = block("bonn"), torch.randn(2, 16, 8, 8)
    assert isinstance(b.act1, nn.PReLU)
    middle = x + b.act1(b.conv1(b.bn1(x)))
    torch.testing.assert_close(b(x), middle + b.act2(b.conv2(b.bn2(middle))))


def test_shortcut_per_block_leaves_the_inner_add_out() -> None:
    torch.manual_seed(0)
    b, x = block("bonn", shortcut="block"), torch.randn(2, 16, 8, 8)
    inner = b.act1(b.conv1(b.bn1(x)))
    torch.testing.assert_close(b(x), x + b.act2(b.conv2(b.bn2(inner))))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = bnnbench.build_backbone("wrn22", quantizer="fp32", dropout=0.3, image_size=8)
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [16, 32, 64]}, "backbone.widths"),
        ({"dropout": 1.0}, "backbone.dropout=1.0"),
        ({"image_size": 7}, "8 pixels and more"),
        ({"stem": "big"}, "backbone.stem='big'"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bnnbench.build_backbone("wrn22", **options)
