"""ResNet-20 and ResNet-18: known parameter counts, structure switches, map sizes."""

import pytest
import torch
import torchvision
from torch import nn

from bnnbench.backbones.blocks import BasicBlock
from bnnbench.backbones.resnet import ResNet
from bnnbench.backbones.structure import PadShortcut
from bnnbench.config import build_backbone
from bnnbench.metrics import count_operations


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


def test_fp32_resnet18_at_224_pixels_is_torchvisions():
    """The same parameters in the same order, and with its weights the same logits."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    net = build_backbone("resnet18", num_classes=1000, image_size=224, downsample="conv").eval()
    assert _parameters(net) == _parameters(theirs) == 11_689_512
    ours, state = net.state_dict(), theirs.state_dict()
    names = [name for name in ours if not name.startswith("fc.")]
    values = [value for name, value in state.items() if not name.startswith("fc.")]
    net.load_state_dict(
        dict(zip(names, values, strict=True)) | {n: state[n] for n in ours if "fc." in n}
    )
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(net(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_memory_saving_of_resnet18_is_the_papers_11_10():
    """BONN (arXiv 1908.06314, Sec. 3.5) states 11.10; the count gives 11.16, with scales 11.12."""
    structure = {"shortcut": "block", "downsample": "conv"}
    net = build_backbone("resnet18", "xnor", num_classes=1000, image_size=224, **structure)
    cost = count_operations(net, (3, 224, 224))
    sizes = cost.as_dict()
    assert sum(layer.weights for layer in cost.layers if layer.is_binary) == 10_985_472
    assert sizes["fp32_bytes"] / sizes["packed_bytes"] == pytest.approx(11.16, abs=0.01)
    with_scales = sizes["packed_bytes"] + sizes["scale_bytes"]
    assert sizes["fp32_bytes"] / with_scales == pytest.approx(11.12, abs=0.01)


@pytest.mark.parametrize(
    ("stem", "size", "side"),
    [
        ("auto", 32, 4),
        ("auto", 48, 6),
        ("auto", 49, 4),
        ("auto", 64, 4),
        ("auto", 96, 6),
        ("auto", 97, 4),
        ("auto", 128, 4),
        ("auto", 225, 8),
        ("half", 32, 2),
        ("imagenet", 64, 2),
        ("imagenet", 8, 1),
        ("small", 64, 8),
        ("small", 100, 13),
    ],
)
def test_stem_follows_the_image_size_unless_it_is_named(stem, size, side):
    net = build_backbone("resnet18", "bnn", image_size=size, stem=stem).eval()
    assert isinstance(net, ResNet)
    large = stem == "imagenet" or (stem == "auto" and size > 96)
    half = stem == "half" or (stem == "auto" and 48 < size <= 96)
    assert net.conv1.kernel_size == ((7, 7) if large else (3, 3))
    assert net.conv1.stride == ((2, 2) if large or half else (1, 1))
    assert isinstance(net.maxpool, nn.MaxPool2d) == large
    with torch.no_grad():
        assert net.forward_features(torch.randn(1, 3, size, size)).shape == (1, 512, side, side)


def test_a_binary_stem_of_seven_pixels():
    net = build_backbone("resnet18", "xnor", image_size=224, first="binary")
    assert net.conv1.weight_quantizer.bits == 1
    assert (net.conv1.kernel_size, net.conv1.stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "imagenet", "image_size": 7}, "8 pixels and more, got 7: set .*image_size=8$"),
        ({"image_size": 0}, "8 pixels and more, got 0"),
        ({"stem": "big"}, "backbone.stem='big': choose one of .*small.*half"),
    ],
)
def test_a_stem_that_does_not_fit_the_image_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet18", **options)


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


def test_batch_norms_start_where_the_method_says():
    def starts(name):
        norms = [m for m in build_backbone("resnet20", name).modules() if type(m) is nn.BatchNorm2d]
        return torch.cat([norm.weight.detach() for norm in norms]).unique().tolist()

    assert (starts("irnet"), starts("rbnn")) == ([1.0], [pytest.approx(1e-8)])


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
