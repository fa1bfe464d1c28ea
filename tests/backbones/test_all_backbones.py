"""Every quantizer in every classifier: builds, runs, trains; the call is timm's."""

import pytest
import torch
from torch import nn

from bnnbench.config import build_backbone, load_quantizer, options
from bnnbench.layers import BinaryConv2d, binary_layers

BACKBONES = [name for name in options("backbone") if not name.startswith(("ssd300_", "timm"))]
QUANTIZERS = options("quantizer")
LAYERS = {
    "alexnet": 6,
    "reactnet_a": 26,
    "resnet18": 16,
    "resnet20": 18,
    "resnet34": 32,
    "vgg16": 13,
    "vgg7": 6,
    "vgg_small": 5,
    "wrn22": 18,
    "wrn40": 36,
}
# Large, and each like another one.
FEW = {
    "alexnet": ("fp32", "adabin"),
    "resnet34": ("xnor",),
    "vgg7": ("adabin", "wage"),
    "wrn40": ("fp32", "bonn"),
    "vgg16": ("fp32", "birealnet"),
}
PAIRS = [(b, q) for b in BACKBONES for q in FEW.get(b, QUANTIZERS)]
WITHOUT_NORMS = ("resnet18", "resnet20", "resnet34", "vgg7")


def _train_once(net: nn.Module, channels: int, size: int, classes: int) -> None:
    torch.manual_seed(0)
    logits = net(torch.randn(2, channels, size, size))
    assert logits.shape == (2, classes)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("backbone", "quantizer"), PAIRS)
def test_every_pair_runs_and_gives_every_parameter_a_gradient(backbone, quantizer, size):
    own = {"first": "fp32", "last": "fp32"}
    if quantizer in ("abbnn", "wage") and backbone not in WITHOUT_NORMS:
        own["norm"] = "batch"
    net = build_backbone(backbone, load_quantizer(quantizer, **own), image_size=size)
    _train_once(net, 3, size, 10)
    quantized = [layer for name, layer in binary_layers(net) if "downsample" not in name]
    assert len(quantized) == LAYERS[backbone]
    linear = [layer for layer in quantized if not isinstance(layer, BinaryConv2d)]
    assert len(linear) == (backbone == "vgg7")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_grey_odd_sized_images_and_other_class_counts(backbone):
    net = build_backbone(backbone, "adabin", num_classes=7, in_channels=1, image_size=28)
    _train_once(net, 1, 28, 7)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_is_kaiming_initialised(backbone):
    """The binary layers as well: weights of both signs with the variance 2 / fan-out."""
    torch.manual_seed(0)
    net = build_backbone(backbone, "bnn")
    for _, layer in binary_layers(net):
        kernel = layer.weight[0, 0].numel() if isinstance(layer, BinaryConv2d) else 9
        fan_out = layer.weight.shape[0] * kernel
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.02)
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_and_head_are_timms(backbone):
    net = build_backbone(backbone, "adabin", image_size=16).eval()
    x = torch.randn(2, 3, 16, 16)
    logits, features = net(x, return_features=True)
    maps = net.forward_features(x)
    assert maps.dim() == 4
    assert features.shape == (2, net.num_features)
    for actual, expected in [
        (net(x), logits),
        (net.forward_head(maps), logits),
        (net.forward_head(maps, pre_logits=True), features),
        (net.fc(features), logits),
    ]:
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_image_sizes_the_networks_were_not_made_for_are_refused(backbone, size):
    with pytest.raises(
        ValueError, match=f"backbone={backbone} is for images of .*8 .*, got {size}"
    ):
        build_backbone(backbone, image_size=size)


@pytest.mark.parametrize("size", [65, 127])
@pytest.mark.parametrize("backbone", ["vgg_small", "vgg7"])
def test_a_classifier_that_sees_every_pixel_is_for_small_images(backbone, size):
    with pytest.raises(
        ValueError, match=f"backbone={backbone} is for .*8 to 64 pixels, got {size}"
    ):
        build_backbone(backbone, image_size=size)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_head_norm_and_binary_ends(backbone):
    net = build_backbone(
        backbone, "bnn", image_size=8, head_norm=True, first="binary", last="binary"
    )
    assert isinstance(net.head_norm, nn.BatchNorm1d)
    _train_once(net, 3, 8, 10)
    bits = [(b.weight_quantizer.bits, b.activation_quantizer.bits) for _, b in binary_layers(net)]
    assert (bits.count((1, 32)), len(bits) - bits.count((1, 1))) == (1, 1)
    assert not any(
        type(m) in (nn.Conv2d, nn.Linear) and "downsample" not in n and n != "conv7"
        for n, m in net.named_modules()
    )
