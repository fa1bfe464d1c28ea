"""A packed network computes what the trained one does, and its file is as small as counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bnnbench
from bnnbench.config import options
from bnnbench.metrics import count_operations
from bnnbench.packing.proof import prove
from bnnbench.packing.sides import NotPackable, checked_cut, cut, grid, value
from bnnbench.runtime.check import check_images
from bnnbench.runtime.format import header_bytes

SEVERAL = {"twn": "2 bits", "wage": "2 bits", "zhuang": "2 bits", "abcnet": "5 bases"}
PACKED = [name for name in options("quantizer") if name not in SEVERAL]
SIZE = (3, 16, 16)
# Methods of which not every layer is packed on both sides: what becomes of its 18 layers instead.
FLOAT: dict[str, str] = {}
FLOAT |= dict.fromkeys(("admm", "bayesbinn", "bwn", "mcn"), "float: activations of Identity")
FLOAT |= {"ienet": "float: activations of IENetActivation"}
FLOAT |= {"tbn": "float: activations of TBNActivation"}
REAL = ("bbb", "fp32")  # evaluated with weights in full precision: nothing is packed
STRUCTURES = [
    ("adabin", {"q_activation_center": "reference", "padding_value": -1}),
    ("xnor", {"first": "binary", "last": "binary", "downsample": "binary_conv"}),
    ("xnor", {"q_input_scale": True, "head_norm": True}),
    ("reactnet", {"shortcut": "block", "downsample": "avgpool_pad", "nonlinearity": "maxout"}),
    ("bonn", {"backbone": "wrn22"}),
    ("xnor", {"backbone": "wrn22"}),
    ("adabin", {"backbone": "vgg_small"}),
    ("xnor", {"backbone": "vgg_small"}),
    ("abbnn", {"backbone": "vgg7"}),
]


# The backbones of the suite, timm's apart, and the side of the images that each takes.
SIDES = dict.fromkeys(set(options("backbone")) - {"timm"}, 32)
SIDES |= {"vgg16": 64, "ssd300_vgg16": 300, "ssd300_resnet18": 300, "ssd300_resnet34": 300}


def exported(net, file: Path, size=SIZE):
    return bnnbench.runtime.load(bnnbench.export(net, file, size))


def is_as_small_as_counted(net, file: Path, size) -> bool:
    """Whether a file holds what is counted and a small header, and no more."""
    cost = count_operations(net, size)
    counted = cost.packed_bytes + sum(layer.scale_bytes for layer in cost.layers)
    header = header_bytes(file)
    return header <= 32768 and file.stat().st_size - header <= 1.05 * counted


@pytest.mark.parametrize("method", PACKED)
def test_every_one_bit_method(method, network, tmp_path):
    """``export`` proves itself; this compares the file that it wrote once more, on other images."""
    net = network(method)
    packed = exported(net, tmp_path / "net.safetensors")
    prove(net, packed, check_images(SIZE, 8, seed=3))
    assert is_as_small_as_counted(net, tmp_path / "net.safetensors", SIZE)
    paths = [layer.path for layer in bnnbench.runtime.report(packed)]
    assert len(packed.layers) == (0 if method in REAL or method in FLOAT else 18)
    assert len(paths) == (0 if method in REAL else 18)
    if method in FLOAT:
        assert set(paths) == {FLOAT[method]}


@pytest.mark.parametrize("backbone", sorted(SIDES))
def test_every_backbone_is_as_small_as_counted(backbone, network, tmp_path):
    size = (3, SIDES[backbone], SIDES[backbone])
    net = network("adabin", backbone=backbone, image_size=SIDES[backbone])
    bnnbench.export(net, tmp_path / "net.safetensors", size)
    assert is_as_small_as_counted(net, tmp_path / "net.safetensors", size)


@pytest.mark.parametrize(("method", "structure"), STRUCTURES)
def test_structures(method, structure, network, tmp_path):
    net = network(method, **structure)
    packed = exported(net, tmp_path / "net.safetensors")
    prove(net, packed, check_images(SIZE, 8, seed=3))
    assert packed.verify() < 1e-3


@pytest.mark.parametrize(("method", "what"), SEVERAL.items())
def test_several_bits_or_bases_are_refused_by_the_layers_name(method, what, network, tmp_path):
    backbone = "vgg7" if method == "wage" else "resnet20"
    with pytest.raises(NotPackable, match=rf"\w+ \(\w+\) has weights of {what}"):
        exported(network(method, backbone), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "options", "what"),
    [
        ("dorefa", {"q_weight_bits": 2}, "2 bits"),
        ("abcnet", {"q_activation_bases": 1}, "5 bases"),
        ("dorefa", {"q_activation_bits": 2}, "float: activations of DoReFaActivation"),
        ("abcnet", {"q_weight_bases": 1}, "float: activations of ABCNetActivation"),
        ("abcnet", {"q_weight_bases": 1, "q_activation_bases": 1}, ""),
        ("zhuang", {"q_weight_bits": 1, "q_activation_bits": 1}, ""),
    ],
)
def test_bits_and_bases_by_option(method, options, what, network, tmp_path):
    net, file = network(method, **options), tmp_path / "net.safetensors"
    if what.endswith(("bits", "bases")):
        with pytest.raises(NotPackable, match=f"has weights of {what}"):
            exported(net, file)
        return
    packed = exported(net, file)
    prove(net, packed, check_images(SIZE, 8, seed=3))
    assert header_bytes(file) <= 32768
    paths = [layer.path for layer in bnnbench.runtime.report(packed)]
    assert len(paths) == 18
    assert len(packed.layers) == (0 if what else 18)
    assert not what or set(paths) == {what}


class Own(nn.Module):
    """Groups, dilation, a linear layer, and views of maps as ShuffleNets have them."""

    def __init__(self, norms: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 24, 3, stride=2, padding=1, groups=2, bias=False)
        self.far = nn.Conv2d(24, 24, 3, padding=2, dilation=2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(24) if norms else nn.Identity() for _ in "ab")
        self.hidden, self.head = nn.Linear(24, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](self.wide(self.stem(x)))
        n, c, h, w = x.shape
        shuffled = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = shuffled + self.norms[1](self.far(x))
        return self.head(self.hidden(x.mean((2, 3))))


@pytest.mark.parametrize("method", ["adabin", "xnor", "reactnet", "dorefa", "bwn"])
def test_a_network_that_was_binarized(method, tmp_path):
    torch.manual_seed(0)
    net = bnnbench.binarize(Own(), method, input_size=SIZE)
    with torch.no_grad():
        net.train()(torch.randn(8, *SIZE))
    packed = exported(net, tmp_path / "net.safetensors")
    assert net.training  # it is left as it is
    prove(net.eval(), packed, check_images(SIZE, 8, seed=3))
    names = {layer.name for layer in bnnbench.runtime.report(packed)}
    assert names == {"wide", "far", "hidden"}


def test_ties_are_told_and_are_no_mistake(tmp_path):
    """Without batch norms sums of signs are 0 now and then, and their sign that of rounding."""
    torch.manual_seed(0)
    net = bnnbench.binarize(Own(norms=False), "xnor", nonlinearity=None, input_size=SIZE)
    with pytest.warns(UserWarning, match="^far: many activations lie on their thresholds"):
        exported(net, tmp_path / "net.safetensors")


def test_what_torch_cannot_follow_names_the_network(tmp_path):
    class Chooses(Own):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x.flatten(1)[:, :5]

    with pytest.raises(NotPackable, match=r"^Chooses cannot be followed by torch\.export: "):
        exported(Chooses(), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"give input_size=\(channels, height, width\)"):
        bnnbench.export(Own(), tmp_path / "net.safetensors")


def test_another_network_is_no_proof(network, tmp_path):
    net = network("adabin")
    packed = exported(net, tmp_path / "net.safetensors")
    with torch.no_grad():
        net.stages[1][0].conv2.activation_quantizer.beta.add_(0.5)
    with pytest.raises(NotPackable, match=r"stages.1.0.conv2: .*codes are others"):
        prove(net, packed, check_images(SIZE, 4))


@pytest.mark.parametrize("method", [name for name in PACKED if name not in ("bbb", "fp32")])
def test_cuts_are_the_sides_own_at_every_edge(method):
    torch.manual_seed(0)
    side = bnnbench.load_quantizer(method).activation(7).eval()
    for parameter in side.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    found = cut(side)
    if found is None or found.compared is not None:
        return
    assert checked_cut(side, 7) is not None
    x = grid(found.edge.expand(7))
    torch.testing.assert_close(value(found, x), side(x).detach())


def test_a_negative_slope_turns_the_code_round():
    side = bnnbench.load_quantizer("sibnn").activation(3).eval()
    side.threshold.data = torch.tensor([0.5, 0.5, 0.5])
    side.slope.data = torch.tensor([2.0, -2.0, 0.0])
    found = checked_cut(side, 3)
    assert found is not None
    x = torch.tensor([[0.5], [0.4999], [0.5001]]).expand(3, 3)
    assert value(found, x).tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1]]


def test_batch_norm_and_slope_between_two_layers_become_whole_numbers(network, tmp_path):
    packed = exported(network("bnn", "vgg_small"), tmp_path / "net.safetensors")
    edges = [layer.activation.threshold for layer in packed.layers.values()]
    assert all(torch.equal(edge, edge.round()) for edge in edges[1:])
    assert [op.op for op in packed.operations].count("affine") == 1  # the stem's alone


def test_the_runtime_needs_no_code_of_training(network, tmp_path):
    file = bnnbench.export(network("adabin"), tmp_path / "net.safetensors", SIZE)
    code = (
        "import sys, torch; from bnnbench import runtime;"
        f"net = runtime.load({str(file)!r}); net(torch.zeros(1, 3, 16, 16));"
        "names = ('bnnbench.quantizers', 'bnnbench.layers', 'lightning', 'hydra', 'torchvision');"
        "print([name for name in names if name in sys.modules])"
    )
    env = {"PYTHONPATH": str(Path(bnnbench.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.strip() == "[]", run.stderr


def test_images_of_another_size_are_refused(network, tmp_path):
    packed = exported(network("xnor"), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"takes inputs \(N, 3, 16, 16\), not \(1, 3, 8, 8\)"):
        packed(torch.zeros(1, 3, 8, 8))


def test_half_precision_stores_the_float_layers_in_half_the_bytes(network, tmp_path):
    net = network("xnor")
    whole = bnnbench.export(net, tmp_path / "whole.safetensors", SIZE)
    half = bnnbench.export(net, tmp_path / "half.safetensors", SIZE, half=True)
    floats = net.conv1.weight.numel() + net.fc.weight.numel()
    saved = (whole.stat().st_size - header_bytes(whole)) - (
        half.stat().st_size - header_bytes(half)
    )
    assert saved == 2 * floats


def test_detectors(network, tmp_path):
    net = network("adabin", "ssd300_resnet18", image_size=96)
    packed = exported(net, tmp_path / "net.safetensors", (3, 96, 96))
    assert torch.equal(packed.anchors, net.anchors)
    with torch.no_grad():
        outputs = net(check_images((3, 96, 96), 2))
        for own, theirs in zip(net.detect(outputs), packed.detect(outputs), strict=True):
            assert all(torch.equal(own[key], theirs[key]) for key in own)
