"""Operations and sizes: known answers, and an independent counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import bnnbench
from bnnbench import layers
from bnnbench.config import build_backbone, load_quantizer, options
from bnnbench.metrics import NetworkCost, count_operations

CLASSIFIERS = [name for name in options("backbone") if not name.startswith(("ssd300_", "timm"))]


def _count(backbone: str, quantizer: str, size: int = 32, **overrides) -> NetworkCost:
    return count_operations(build_backbone(backbone, quantizer, **overrides), (3, size, size))


@pytest.mark.parametrize(
    ("backbone", "fp_macs", "binary_macs", "ops", "packed_bytes", "fp32_bytes"),
    [
        ("resnet20", 443_008, 40_108_032, 1.0697e6, 49_400, 1_085_048),
        ("resnet18", 8.07e6, 5.474e8, 1.662e7, 2_162_600, 44_731_304),
    ],
)
def test_adabins_networks(backbone, fp_macs, binary_macs, ops, packed_bytes, fp32_bytes):
    totals = _count(backbone, "adabin").as_dict()
    assert totals["fp_macs"] == pytest.approx(fp_macs, rel=1e-3)
    assert totals["binary_macs"] == pytest.approx(binary_macs, rel=1e-3)
    assert totals["ops"] == pytest.approx(ops, rel=1e-3)
    assert totals["ops"] == totals["fp_macs"] + totals["binary_macs"] / 64
    assert totals["packed_bytes"] == packed_bytes
    assert totals["fp32_bytes"] == fp32_bytes


def test_resnet20s_counts_are_exact():
    cost = _count("resnet20", "adabin")
    assert (cost.fp_macs, cost.binary_macs, cost.params) == (443_008, 40_108_032, 271_262)


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_full_precision_macs_are_half_of_torchs_flops(backbone, size, monkeypatch):
    monkeypatch.setattr(layers, "_single_window", lambda *_: None)  # taps of padding count as well
    net = build_backbone(backbone, "fp32", image_size=size).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    cost = count_operations(net, (3, size, size))
    assert cost.fp_macs == counter.get_total_flops() / 2
    assert cost.binary_macs == 0
    assert cost.ops == cost.fp_macs
    assert cost.packed_bytes == 4 * cost.params


@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_binarization_moves_macs_and_loses_none(backbone):
    full, binary = _count(backbone, "fp32"), _count(backbone, "bnn")
    assert binary.fp_macs + binary.binary_macs == full.fp_macs
    assert binary.params == full.params


def test_strided_grouped_dilated_convolutions():
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.Conv2d(8, 8, 3, dilation=2)
    )
    counter = FlopCounterMode(display=False)
    with counter:
        net(torch.zeros(1, 4, 15, 15))
    assert count_operations(net, (4, 15, 15)).fp_macs == counter.get_total_flops() / 2


def test_more_bits_are_more_binary_macs():
    one, eight = (
        _count("resnet20", "dorefa"),
        _count("resnet20", load_quantizer("dorefa", weight_bits=2, activation_bits=4)),
    )
    assert eight.binary_macs == 8 * one.binary_macs
    assert eight.fp_macs == one.fp_macs
    assert eight.packed_bytes - one.packed_bytes == 267_264 / 8  # a second bit for each weight


@pytest.mark.parametrize("bits", [{"activation_bits": 32}, {"weight_bits": 32}])
def test_one_binarized_side_alone_saves_no_operations(bits):
    cost = _count("resnet20", load_quantizer("dorefa", **bits))
    assert cost.binary_macs == 0
    assert cost.fp_macs == _count("resnet20", "fp32").fp_macs
    expected = (
        4 * cost.params if "weight_bits" in bits else _count("resnet20", "dorefa").packed_bytes
    )
    assert cost.packed_bytes == expected


def test_a_binary_stem_is_packed_but_counts_as_full_precision():
    plain, binary = _count("resnet20", "bnn"), _count("resnet20", "bnn", first="binary")
    assert binary.ops == plain.ops
    assert plain.packed_bytes - binary.packed_bytes == 3 * 16 * 9 * (4 - 1 / 8)


@pytest.mark.parametrize(
    ("quantizer", "numbers"),
    [
        *(("bnn", 0), ("dorefa", 18), ("birealnet", 672), ("xnor", 672), ("adabin", 2 * 672)),
        ("pcnn", 18),  # one amplitude a layer, over a window of signs that are parameters
        ("abcnet", 5 * 18),  # one scale a base and layer
    ],
)
def test_scales_derived_from_the_latent_weight_stand_apart(quantizer, numbers):
    """ResNet-20 has 6 * (16 + 32 + 64) = 672 binary filters in 18 layers."""
    cost = _count("resnet20", quantizer)
    assert cost.as_dict()["scale_bytes"] == 4 * numbers


@pytest.mark.parametrize(
    ("quantizer", "without", "numbers"),
    [
        ("mcn", "bwn", 18 * 4 * 9),  # four planes of 3x3 a layer
        ("bonn", "pcnn", 0),  # a vector of nine a layer, like PCNN's matrix
        ("rebnn", "reactnet", 672),  # one alpha a filter
    ],
)
def test_learned_scales_are_parameters_and_counted_once(quantizer, without, numbers):
    """Against a method without them in the same structure."""
    sizes, others = (_count("resnet20", name).as_dict() for name in (quantizer, without))
    assert sizes["scale_bytes"] == 0
    assert sizes["packed_bytes"] - others["packed_bytes"] == 4 * numbers


def test_a_layer_that_is_called_again_costs_operations_and_no_bytes():
    layer = bnnbench.load_quantizer("xnor").conv2d(4, 4, 3, padding=1, bias=False)
    stem = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    once, thrice = (
        count_operations(torch.nn.Sequential(stem, *[layer] * n), (3, 8, 8)) for n in (1, 3)
    )
    assert thrice.binary_macs == 3 * once.binary_macs == 3 * 8 * 8 * 4 * 4 * 9
    assert (thrice.params, thrice.packed_bytes) == (once.params, once.packed_bytes)
    assert thrice.as_dict()["scale_bytes"] == once.as_dict()["scale_bytes"] > 0
    twin = bnnbench.load_quantizer("xnor").conv2d(4, 4, 3, padding=1, bias=False)
    twin.weight = layer.weight
    shared = count_operations(torch.nn.Sequential(stem, layer, twin), (3, 8, 8))
    assert (shared.params, shared.packed_bytes) == (once.params, once.packed_bytes)
    assert shared.binary_macs == 2 * once.binary_macs


def test_layers_are_listed_with_their_names():
    layers = _count("vgg_small", "xnor").layers_as_dicts()
    assert len(layers) == 7
    assert [layer["weight_bits"] for layer in layers] == [32, 1, 1, 1, 1, 1, 32]
    net = dict(build_backbone("vgg_small", "xnor").named_modules())
    assert all(net[layer["name"]].weight.numel() == layer["weights"] for layer in layers)
    assert layers[0]["macs"] == 32 * 32 * 128 * 27
    assert layers[-1]["name"] == "fc"


def test_the_network_is_left_as_it_was():
    net = build_backbone("resnet20", "adabin").train()
    net.bn1.eval()  # a frozen part
    modes = {name: module.training for name, module in net.named_modules()}
    before = {key: value.clone() for key, value in net.state_dict().items()}
    bnnbench.metrics.count_operations(net, (3, 32, 32))
    assert modes == {name: module.training for name, module in net.named_modules()}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_hooks_and_mode_are_restored_after_a_failure():
    net = build_backbone("resnet20", "adabin").train()
    with pytest.raises(RuntimeError):
        count_operations(net, (5, 32, 32))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_double_precision_networks_are_counted_too():
    assert count_operations(build_backbone("resnet20").double(), (3, 8, 8)).fp_macs > 0
