"""Binary SSDs: default boxes, maps, costs, switches, detection, pre-trained bodies."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg16 as torchvision_vgg16
from torchvision.models.detection import ssd300_vgg16 as torchvision_ssd

from bnnbench.backbones.ssd import HeadOutputs
from bnnbench.config import build_backbone, options
from bnnbench.layers import BinaryConv2d, binary_layers
from bnnbench.metrics import count_operations
from bnnbench.records.checkpoints import BadCheckpoint, load_weights

SSDS = [name for name in options("backbone") if name.startswith("ssd300_")]
VGG_FLOAT = {"conv1", "conv7", "classification", "regression"}


def ssd(name="ssd300_resnet18", quantizer="xnor", size=64, **overrides):
    torch.manual_seed(0)
    return build_backbone(name, quantizer, num_classes=3, image_size=size, **overrides)


def float_layers(net):
    """What a network computes in full precision, without the numbers of the heads' convolutions."""
    names = (name for name, module in net.named_modules() if type(module) is nn.Conv2d)
    return {name.split(".module_list")[0] for name in names}


@pytest.mark.parametrize("name", SSDS)
def test_default_boxes_of_300_pixels_are_the_papers(name):
    """Size 30 around the cell (0, 0) of step 8; size 264, aspect 1/2 around the image's centre."""
    net = build_backbone(name, "fp32", num_classes=20, image_size=300)
    assert net.backbone.sides == [38, 19, 10, 5, 3, 1]
    assert net.anchors.shape == (8732, 4)
    torch.testing.assert_close(net.anchors[0], torch.tensor([-11.0, -11.0, 19.0, 19.0]))
    half = 264 / 2**0.5 / 2
    torch.testing.assert_close(net.anchors[-1], torch.tensor([150 - half, 0, 150 + half, 300]))


def test_the_last_default_boxes_reach_the_border_or_lie_beside_it():
    """What docs/detection.md says of the last map, and of the last row of the map of ten cells."""
    anchors = build_backbone("ssd300_resnet18", "fp32", num_classes=20, image_size=300).anchors
    sizes = anchors[-4:, 2:] - anchors[-4:, :2]
    larger = 300 * (0.88 * 1.05) ** 0.5
    torch.testing.assert_close(sizes[:2, 0], torch.tensor([264.0, larger]))
    assert sizes[2:].amax(dim=1).tolist() == [300, 300]  # 264 sqrt(2) = 373
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    beside = centres[(centres > 300.01).any(dim=1)]
    assert len(beside) == 19 * 6
    assert beside.max() == pytest.approx(9.5 * 32)


def test_default_boxes_are_torchvisions_but_for_their_scales():
    theirs = torchvision_ssd(weights=None, weights_backbone=None, num_classes=21).eval()
    net = build_backbone(
        "ssd300_resnet18", "fp32", num_classes=20, image_size=300,
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
    )  # fmt: skip
    found = []
    theirs.anchor_generator.register_forward_hook(lambda *args: found.append(args[2][0]))
    with torch.no_grad():
        theirs([torch.zeros(3, 300, 300)])
    torch.testing.assert_close(net.anchors, found[0])


@pytest.mark.parametrize("size", [64, 96, 240, 511])
@pytest.mark.parametrize("name", SSDS[:2])
def test_the_maps_are_as_wide_as_the_default_boxes_say(name, size):
    net = ssd(name, size=size).eval()
    with torch.no_grad():
        outputs, maps = net(torch.randn(1, 3, size, size), return_features=True)
    assert [source.shape[-1] for source in maps] == net.backbone.sides
    assert outputs.class_logits.shape == (1, len(net.anchors), 4)
    assert outputs.offsets.shape == (1, len(net.anchors), 4)


def test_vgg16_counts_as_torchvisions_ssd300():
    """31 374 M multiply-accumulates; batch norm has two parameters where a bias is one."""
    theirs = torchvision_ssd(weights=None, weights_backbone=None, num_classes=21)
    biases = sum(
        module.bias.numel() for module in theirs.backbone.modules() if type(module) is nn.Conv2d
    )
    net = build_backbone("ssd300_vgg16", "fp32", num_classes=20, image_size=300)
    cost = count_operations(net, (3, 300, 300))
    assert round(cost.fp_macs / 1e6) == 31374
    assert cost.params == sum(p.numel() for p in theirs.parameters()) + biases


def test_binary_vgg16_with_shortcuts_counts_as_bidets_code():
    """The released network: 21.76 MiB packed, 3064 M operations, 1x1 and heads in float."""
    net = build_backbone(
        "ssd300_vgg16", "birealnet", num_classes=20, image_size=300, shortcut="conv"
    )
    cost = count_operations(net, (3, 300, 300))
    assert cost.packed_bytes / 2**20 == pytest.approx(21.76, abs=0.01)
    assert cost.ops / 1e6 == pytest.approx(3064, abs=1)


def test_plain_vgg16_is_torchvisions_body():
    """The same order of widths, strides and pools: thirteen convolutions, then conv6 and conv7."""
    net = build_backbone("ssd300_vgg16", "fp32", num_classes=20, image_size=300)
    body = [m.weight.shape for m in net.backbone.body.modules() if isinstance(m, nn.Conv2d)]
    theirs = [m.weight.shape for m in torchvision_vgg16().features if isinstance(m, nn.Conv2d)]
    assert body == [*theirs, (1024, 512, 3, 3), (1024, 1024, 1, 1)]


def test_what_stays_in_full_precision():
    plain = float_layers(ssd("ssd300_vgg16"))
    assert {name.rpartition(".")[2] for name in plain} == VGG_FLOAT
    resnet = float_layers(ssd(downsample="conv"))
    assert {name for name in resnet if "downsample" not in name} == {
        "backbone.body.conv1", "head.classification", "head.regression"
    }  # fmt: skip
    assert sum("downsample" in name for name in resnet) == 3


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ({"projection": "binary"}, "downsample"),
        ({"conv7": "binary"}, "conv7"),
        ({"last": "binary"}, "head"),
        ({"first": "binary"}, "conv1"),
    ],
)
def test_each_float_layer_can_be_binary(switch, gone):
    options = {"shortcut": "conv", "nonlinearity": "identity"}
    before = float_layers(ssd("ssd300_vgg16", "birealnet", **options))
    after = float_layers(ssd("ssd300_vgg16", "birealnet", **options, **switch))
    assert after == {name for name in before if gone not in name} != before


def test_extra_maps_can_stay_float():
    names = {name for name, _ in binary_layers(ssd(extras="fp32"))}
    assert names == {name for name, _ in binary_layers(ssd()) if "extras" not in name}
    assert len(names) < len(list(binary_layers(ssd())))


@pytest.mark.parametrize("quantizer", sorted({*options("quantizer")} - {"abbnn", "wage"}))
def test_every_quantizer_gives_every_parameter_a_finite_gradient(quantizer):
    net = ssd(quantizer=quantizer)
    outputs, maps = net(torch.randn(2, 3, 64, 64), return_features=True)
    (outputs.class_logits.square().mean() + outputs.offsets.square().mean()).backward()
    assert len(maps) == 6
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert len(list(binary_layers(net))) == 16 + 6


@pytest.mark.parametrize("quantizer", ["xnor", "birealnet", "adabin"])
@pytest.mark.parametrize("name", SSDS)
def test_binary_layers_see_both_values(name, quantizer):
    """Behind a ReLU every sign would be +1."""
    seen = {}
    net = ssd(name, quantizer)
    for layer_name, layer in binary_layers(net):
        layer.activation_quantizer.register_forward_hook(
            lambda _, args, out, key=layer_name: seen.update({key: out.unique().numel()})
        )
    net(torch.randn(2, 3, 64, 64))
    assert set(seen.values()) == {2}
    with pytest.raises(ValueError, match="nonlinearity=relu before"):
        ssd(name, "xnor", nonlinearity="relu")


def test_detection_gives_back_what_the_heads_say():
    """Offsets encoded by hand (centre over 0.1, size over 0.2) come back as the boxes."""
    net = ssd(size=96)
    truths = torch.tensor([[10.0, 12, 40, 50], [50, 50, 90, 80]])
    boxes, chosen = net.anchors, torch.tensor([100, 500])
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle, extent = (truths[:, :2] + truths[:, 2:]) / 2, truths[:, 2:] - truths[:, :2]
    offsets = torch.zeros(1, len(boxes), 4)
    offsets[0, chosen, :2] = (middle - centre[chosen]) / size[chosen] / 0.1
    offsets[0, chosen, 2:] = (extent / size[chosen]).log() / 0.2
    logits = torch.zeros(1, len(boxes), 4)
    logits[..., 0] = 20
    logits[0, chosen] = torch.tensor([[0.0, 0, 9, 0], [0, 8, 0, 0]])
    (found,) = net.detect(HeadOutputs(logits, offsets))
    assert found["labels"].tolist() == [2, 1]
    torch.testing.assert_close(found["boxes"], truths, atol=1e-3, rtol=0)


def test_a_classifier_starts_a_detector(tmp_path):
    classifier = build_backbone("resnet18", "birealnet", image_size=64, stem="imagenet")
    path = tmp_path / "classifier.pt"
    torch.save(classifier.state_dict(), path)
    net = ssd("ssd300_resnet18", "birealnet")
    load_weights(net, path, strict=False)
    own = net.backbone.body.state_dict()
    for key, value in classifier.state_dict().items():
        if not key.startswith(("fc.", "head_norm.")):
            torch.testing.assert_close(own[key], value)
    with pytest.raises(BadCheckpoint, match="another network"):
        load_weights(ssd("ssd300_resnet34", "birealnet"), path, strict=False)


def test_an_evaluation_takes_no_classifier_for_a_detector(tmp_path):
    path = tmp_path / "classifier.pt"
    torch.save(
        build_backbone("resnet18", "xnor", image_size=64, stem="imagenet").state_dict(), path
    )
    with pytest.raises(BadCheckpoint, match="another network"):
        load_weights(ssd(), path)


def test_a_detector_of_other_classes_starts_all_but_the_class_heads(tmp_path):
    other = build_backbone("ssd300_resnet18", "xnor", num_classes=5, image_size=64)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    net = ssd()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(BadCheckpoint, match="other shape"):
        load_weights(net, tmp_path / "other.pt")
    with pytest.warns(UserWarning, match="of other classes"):
        load_weights(net, tmp_path / "other.pt", strict=False)
    for key, value in net.state_dict().items():
        start = before if key.startswith("head.classification.") else other.state_dict()
        assert torch.equal(value, start[key]), key


def test_binary_heads_pad_as_the_body_does():
    layers = dict(binary_layers(ssd(last="binary", padding_value=-1)))
    assert {layer.padding_value for layer in layers.values()} == {-1}


def test_a_vgg16_classifier_starts_a_detector(tmp_path):
    classifier = build_backbone("vgg16", "birealnet", image_size=32, shortcut="conv")
    torch.save(classifier.state_dict(), tmp_path / "vgg.pt")
    net = ssd("ssd300_vgg16", "birealnet", shortcut="conv")
    load_weights(net, tmp_path / "vgg.pt", strict=False)
    torch.testing.assert_close(net.backbone.body.conv6.weight, classifier.conv6.weight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"size": 63}, "64 pixels and more: 63"),
        ({"scales": [0.1, 0.2]}, "must be 7 rising"),
        ({"scales": [0.3, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8]}, "must be 7 rising"),
        ({"extras": "int8"}, "backbone.extras='int8'"),
        ({"last": "int8"}, "backbone.last='int8'"),
        ({"name": "ssd300_vgg16", "shortcut": "block"}, "choose none"),
        ({"name": "ssd300_vgg16", "conv7": "int8"}, "backbone.conv7='int8'"),
    ],
)
def test_switches_that_make_no_sense_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        ssd(**overrides)


def test_the_convolutions_behind_the_body_are_binary():
    extras = ssd().backbone.extras
    kinds = [type(m) for m in extras.modules() if isinstance(m, nn.Conv2d)]
    assert kinds == [BinaryConv2d] * 6
