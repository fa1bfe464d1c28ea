"""Objects from the yaml files: names, overrides and errors."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import bnnbench
from bnnbench.backbones.structure import Structure
from bnnbench.config import (
    backbone_from_config,
    build_backbone,
    conf_dir,
    load_option,
    load_quantizer,
    options,
    quantizer_from_config,
    target,
    to_dict,
)
from bnnbench.layers import BinaryConv2d, QuantizerSpec

SRC = Path(bnnbench.__file__).parents[1]
# What a method states; the nonlinearity behind the stem is the backbone's alone.
STRUCTURE = {field.name for field in fields(Structure)} - {"quantizer", "stem_nonlinearity"}


def test_the_options_are_the_files():
    expected = {"fp32", "bnn", "xnor", "dorefa", "birealnet", "irnet", "reactnet", "adabin"}
    assert expected <= set(options("quantizer"))
    assert {"resnet20", "resnet18", "vgg_small"} <= set(options("backbone"))
    assert options("quantizer") == sorted(options("quantizer"))


@pytest.mark.parametrize("name", options("quantizer"))
def test_every_quantizer_loads_under_its_own_name_with_its_block(name):
    spec = load_quantizer(name)
    assert isinstance(spec, QuantizerSpec)
    assert spec.name == name
    assert spec.config.keys() >= STRUCTURE
    conv = bnnbench.load_quantizer(name).conv2d(4, 8, 3, padding=1, bias=False)
    assert isinstance(conv, nn.Conv2d)
    assert conv(torch.randn(2, 4, 5, 5)).shape == (2, 8, 5, 5)


@pytest.mark.parametrize("name", [name for name in options("backbone") if name != "timm"])
def test_every_backbone_builds_under_its_own_name(name):
    assert isinstance(bnnbench.build_backbone(name, image_size=64), nn.Module)
    assert load_option("backbone", name, {}).name == name


def test_quantizer_overrides_reach_the_modules():
    dorefa = load_quantizer("dorefa", weight_bits=2, activation_bits=4).conv2d(4, 4, 3)
    assert (dorefa.weight_quantizer.bits, dorefa.activation_quantizer.bits) == (2, 4)
    adabin = load_quantizer("adabin", activation_center="reference", t_min=0.1).conv2d(4, 4, 3)
    assert adabin.activation_quantizer.is_reference
    assert float(adabin.weight_quantizer.schedule.t) == pytest.approx(0.1)
    xnor = load_quantizer("xnor", gradient="lua", gradient_scale=3, input_scale=True)
    side = xnor.conv2d(4, 4, 3).weight_quantizer
    assert (side.gradient, side.gradient_scale) == ("lua", 3)
    assert xnor.conv2d(4, 4, 3).output is not None
    for name in ("birealnet", "reactnet"):
        conv = load_quantizer(name, magnitude_aware=True).conv2d(4, 4, 3)
        assert conv.weight_quantizer.magnitude_aware


def test_layers_do_not_share_state():
    spec = load_quantizer("adabin")
    first, second = spec.conv2d(2, 2, 3), spec.conv2d(2, 2, 3)
    first.activation_quantizer.alpha.data.fill_(5)
    assert second.activation_quantizer.alpha.item() == 1


def test_backbone_overrides_reach_the_network():
    net = build_backbone(
        "resnet20",
        "xnor",
        num_classes=7,
        in_channels=1,
        image_size=28,
        shortcut="conv",
        nonlinearity="prelu",
        padding_value=1,
        head_norm=True,
    )
    assert net.fc.out_features == 7
    assert net.conv1.in_channels == 1
    structure = net.structure.as_dict()
    assert structure["shortcut"] == "conv"
    assert structure["nonlinearity"] == "prelu"
    assert isinstance(net.head_norm, nn.BatchNorm1d)
    binary = [module for module in net.modules() if isinstance(module, BinaryConv2d)]
    assert all(layer.padding_value == 1 for layer in binary)


def test_structure_overridden_in_the_quantizer_reaches_the_network():
    spec = load_quantizer("adabin", nonlinearity="prelu", head_norm=False)
    structure = build_backbone("resnet20", spec).structure
    assert (structure.nonlinearity, structure.head_norm) == ("prelu", False)
    net = build_backbone("resnet20", spec, nonlinearity="maxout")  # the backbone's own key wins
    assert net.structure.nonlinearity == "maxout"


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"quantizer='adabinn'.*'adabin'.*'xnor'"):
        load_quantizer("adabinn")
    with pytest.raises(ValueError, match=r"backbone='resnet21'.*'resnet18'.*'resnet20'"):
        build_backbone("resnet21")
    with pytest.raises(ValueError, match=r"quantizer='xnorr'.*'xnor'"):
        build_backbone("resnet20", "xnorr")


def test_unknown_keys_list_the_valid_ones():
    with pytest.raises(
        ValueError, match=r"quantizer=adabin: no such key.*centre.*activation_center"
    ):
        load_quantizer("adabin", centre="paper")
    with pytest.raises(ValueError, match=r"backbone=resnet20: no such key.*depth.*shortcut"):
        build_backbone("resnet20", depth=3)


def test_a_mistyped_value_names_its_key():
    with pytest.raises(ValueError, match=r"backbone\.downsample='padd'.*'pad'"):
        build_backbone("resnet20", downsample="padd")
    with pytest.raises(ValueError, match=r"quantizer\.weight_bits=3\.5"):
        build_backbone("resnet20", load_quantizer("dorefa", weight_bits=3.5))


def test_the_same_objects_come_from_a_composed_config():
    """As train.py does: relative and absolute interpolations resolve inside a larger tree."""
    root = OmegaConf.create(
        {
            "quantizer": load_option("quantizer", "adabin", {"activation_center": "reference"}),
            "backbone": load_option("backbone", "resnet20", {}),
            "dataset": {"num_classes": 5, "in_channels": 1, "image_size": 8},
        }
    )
    spec = quantizer_from_config(root.quantizer)
    assert spec.conv2d(1, 1, 1).activation_quantizer.is_reference
    net = backbone_from_config(root.backbone, spec)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert to_dict(root.backbone)["nonlinearity"] == "maxout"


def test_target_is_the_named_callable_with_its_arguments():
    assert target({"_target_": "fractions.Fraction", "denominator": 4})(3).denominator == 4


def test_conf_stands_beside_the_sources():
    assert (conf_dir() / "quantizer" / "adabin.yaml").is_file()


def test_the_package_imports_lightly():
    """Hydra loads the sweeper's plugin, and with it the package, at every start."""
    code = "import sys, bnnbench; print('torch' in sys.modules, 'lightning' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_unknown_attributes_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'load_quantiser'"):
        _ = bnnbench.load_quantiser
