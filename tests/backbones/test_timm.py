"""Models of timm as backbones: families, sizes, names, and a run from its config."""

import json
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision.models import resnet18

import bnnbench
from bnnbench.backbones.timm import TimmBackbone
from bnnbench.config import build_backbone
from bnnbench.layers import BinaryConv2d, BinaryLinear, binary_layers
from bnnbench.metrics import count_operations
from bnnbench.records.checkpoints import load_weights
from bnnbench.records.fingerprint import run_name
from bnnbench.runs import run

# Model, its arguments, a method, and how many of its layers become binary.
FAMILIES = {
    "resnet10t": ({"channels": [8, 8, 16, 16], "stem_width": 8}, "adabin", 10),
    "vgg11": ({"mlp_ratio": 1 / 128}, "xnor", 9),
    "mobilenetv3_small_050": ({}, "irnet", 52),  # depthwise, squeeze-and-excitation
    "tf_mobilenetv3_small_minimal_100": ({}, "reactnet", 34),  # same padding, ReLU
    "convnext_atto": ({"depths": [1, 1, 1, 1]}, "bnn", 15),  # linear layers over maps
    "vit_tiny_patch16_224": ({"depth": 2, "patch_size": 8}, "recu", 8),
    "mixer_s32_224": ({"num_blocks": 2, "patch_size": 8, "embed_dim": 32}, "siman", 8),
}


def _build(model: str, quantizer: str, size: int = 32, **options) -> TimmBackbone:
    torch.manual_seed(0)
    kwargs = FAMILIES.get(model, ({},))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of squeeze-and-excitation
        net = build_backbone(
            "timm", quantizer, model=model, image_size=size, **{"kwargs": kwargs} | options
        )
    assert isinstance(net, TimmBackbone)
    return net


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_with_a_method(family):
    _, quantizer, layers = FAMILIES[family]
    net = _build(family, quantizer, num_classes=7, in_channels=1)
    assert len(list(binary_layers(net))) == layers
    logits, features = net(torch.randn(2, 1, 32, 32), return_features=True)
    assert (logits.shape, features.shape) == ((2, 7), (2, net.num_features))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_full_precision_is_timms_own_and_features_fit_the_logits(family):
    kwargs = FAMILIES[family][0]
    net, x = _build(family, "fp32").eval(), torch.randn(2, 3, 32, 32)
    size = {"img_size": 32} if family.startswith("vit") else {}
    if family.startswith("mixer"):  # timm's function takes no patch_size beside its own
        own = MlpMixer(10, img_size=32, **kwargs).eval()
    else:
        own = timm.create_model(family, num_classes=10, **kwargs, **size).eval()
    own.load_state_dict({k.removeprefix("model."): v for k, v in net.state_dict().items()})
    logits, features = net(x, return_features=True)
    assert torch.equal(net(x), own(x))
    torch.testing.assert_close(logits, own(x))
    torch.testing.assert_close(net.fc(features), own(x))
    maps = net.forward_features(x)
    torch.testing.assert_close(net.forward_head(maps), own(x))
    torch.testing.assert_close(net.forward_head(maps, pre_logits=True), features)


def test_operations_are_those_of_the_same_network_elsewhere():
    """timm's ResNet-18 has torchvision's layers: 16 binary ones, by hand from their shapes."""
    cost = count_operations(_build("resnet18", "xnor"), (3, 32, 32))
    twin = count_operations(resnet18(num_classes=10), (3, 32, 32))
    binary = [layer for layer in cost.layers if layer.is_binary]
    assert len(binary) == 16
    assert cost.binary_macs == sum(x.macs for x in twin.layers if re.search(r"\.conv[12]$", x.name))
    assert cost.fp_macs + cost.binary_macs == twin.fp_macs
    assert cost.params == twin.params


@pytest.mark.parametrize(
    ("model", "quantizer", "expected"),
    [
        ("resnet10t", "reactnet", ("rprelu", "fp32", "fp32")),
        ("resnet10t", "dorefa", ("own", "fp32", "fp32")),
        ("convnext_atto", "reactnet", ("own", "fp32", "fp32")),  # GELU
    ],
)
def test_structure_says_what_was_replaced(model, quantizer, expected):
    facts = _build(model, quantizer).structure.as_dict()
    keys = ("nonlinearity", "first", "last", "padding_value")
    assert facts == dict(zip(keys, (*expected, 0), strict=True))


def test_options_reach_the_network():
    net = _build("resnet10t", "xnor", keep=["*.conv1", "*.0"], nonlinearity="prelu")
    assert net.structure.as_dict()["last"] == "binary"
    assert isinstance(net.fc, BinaryLinear)
    assert not any(isinstance(m, BinaryConv2d) for n, m in net.named_modules() if n[-5:] == "conv1")
    assert any(isinstance(m, nn.PReLU) for m in net.modules())
    assert net.structure.nonlinearity == "prelu"
    net = _build("vit_tiny_patch16_224", "xnor", size=8, kwargs={"patch_size": 4, "depth": 1})
    assert net.model.patch_embed.grid_size == (2, 2)


def test_unknown_models_name_close_ones():
    with pytest.raises(ValueError, match=r"no model resnet10tt; did you mean resnet10t, "):
        build_backbone("timm", model="resnet10tt")


def test_unknown_models_name_those_that_begin_alike():
    with pytest.raises(ValueError, match=r"no model vit_tinny; did you mean .*vit_tiny_"):
        build_backbone("timm", model="vit_tinny")


@pytest.mark.parametrize("model", ["mixer_s32_224", "vit_tiny_patch16_224", "resnet10t"])
def test_arguments_that_a_model_does_not_take(model):
    with pytest.raises(
        ValueError, match=rf"^backbone\.kwargs=.* does not fit {model}: .*patchsize"
    ):
        build_backbone("timm", model=model, kwargs={"patchsize": 4})


@pytest.mark.parametrize(
    ("model", "kwargs", "layers"),
    [
        (
            "vit_tiny_patch16_224",
            {"patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3, "qk_norm": True},
            ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"],
        ),
        (
            "mixer_s32_224",
            {"patch_size": 4, "embed_dim": 32, "num_blocks": 2},
            ["mlp_tokens.fc1", "mlp_tokens.fc2", "mlp_channels.fc1", "mlp_channels.fc2"],
        ),
    ],
)
@pytest.mark.parametrize("quantizer", ["xnor", "reactnet", "adabin"])
def test_blocks_are_binarized_by_the_methods_own_rules_and_packed(
    model, kwargs, layers, quantizer, tmp_path
):
    """Each linear layer is the product of its two sides; the packed file answers the same."""
    net = _build(model, quantizer, kwargs=kwargs).eval()
    expected = [f"model.blocks.{index}.{name}" for index in (0, 1) for name in layers]
    found = dict(binary_layers(net))
    assert list(found) == expected
    seen = {}
    for name, layer in found.items():
        layer.register_forward_hook(
            lambda m, args, out, name=name: seen.update({name: (args, out)})
        )
    net(torch.randn(2, 3, 32, 32))
    for name, layer in found.items():
        (tokens,), out = seen[name]
        code = layer.activation_quantizer.decompose(tokens.flatten(0, -2))
        side = layer.weight_quantizer.decompose(layer.weight)
        rows = code.scale * code.code + code.offset, side.scale * side.code + side.offset
        dense = rows[0] @ rows[1].T + layer.bias
        torch.testing.assert_close(out.flatten(0, -2), dense, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sums on their thresholds
        file = bnnbench.export(net, tmp_path / "net.safetensors", (3, 32, 32))
    packed = bnnbench.runtime.load(file)
    assert len(packed.layers) == len(expected)
    assert {layer.name for layer in bnnbench.runtime.report(packed)} == set(expected)


def test_weights_that_cannot_be_had(monkeypatch):
    def offline(name: str, **options: object) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        OSError, match=r"pretrained=true: .* of resnet10t\.c3_in1k .*\(no network\)"
    ):
        build_backbone("timm", model="resnet10t.c3_in1k", pretrained=True)


def test_pretrained_weights_are_binarized(monkeypatch):
    """timm loads them before the conversion: the latent weights are timm's."""
    create = timm.create_model

    def loaded(name: str, pretrained: bool = False, **options) -> nn.Module:
        net = create(name, **options)
        assert pretrained
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.25)
        return net

    monkeypatch.setattr(timm, "create_model", loaded)
    net = _build("resnet10t", "siman", pretrained=True)
    for _, layer in binary_layers(net):
        assert float(layer.weight.detach().mean()) == 0.25
        assert float(layer.output.scale.detach().mean()) == 0.25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pretrained_weights_that_are_no_numbers_are_refused(monkeypatch, value):
    create = timm.create_model

    def broken(name: str, pretrained: bool = False, **options) -> nn.Module:
        net = create(name, **options)
        with torch.no_grad():
            net.get_parameter("layer2.0.conv2.weight").view(-1)[3] = value
        return net

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(
        ValueError, match=r"^pretrained=true: layer2\.0\.conv2\.weight of resnet10t "
    ):
        _build("resnet10t", "xnor", pretrained=True)


@pytest.mark.parametrize("quantizer", ["adabin", "reactnet", "siman", "xnorpp", "fda"])
def test_a_full_precision_run_s_checkpoint_starts_a_binary_one(quantizer, tmp_path):
    full = _build("resnet10t", "fp32")
    state = {f"net.{key}": value for key, value in full.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    net = _build("resnet10t", quantizer)
    nn.init.zeros_(net.fc.weight)
    load_weights(net, tmp_path / "last.ckpt", strict=False)
    started = net.state_dict()
    assert all(torch.equal(started[key], value) for key, value in full.state_dict().items())


def test_several_classifiers_have_no_features():
    net = _build("deit_tiny_distilled_patch16_224", "bnn", kwargs={"depth": 1})
    with pytest.raises(ValueError, match="no one classifier"):
        net(torch.randn(2, 3, 32, 32), return_features=True)


def test_a_run(compose):
    """The README's command; features reach BONN's loss; a table's row says which model it was."""
    few = ["+trainer.limit_train_batches=2", "+trainer.limit_test_batches=1", "logger=none"]
    few += ["trainer.max_epochs=1", "trainer.accelerator=cpu"]
    model = ["backbone=timm", "backbone.name=resnet10t", "backbone.kwargs={channels: [8, 8, 8, 8]}"]
    cfg = compose("quantizer=adabin", "dataset=digits", "loss=bonn", *few, *model)
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    result = json.loads((Path(cfg.paths.output_dir) / "result.json").read_text())
    assert "resnet10t" in result["name"]
    assert "resnet10t" in result["choices"]["backbone"]
    assert result["config"]["backbone"]["model"] == "timm/resnet10t"
    assert result["structure"]["nonlinearity"] == "maxout"


def test_two_models_are_two_runs_and_none_is_an_error(compose):
    names = {run_name(compose("backbone=timm", f"backbone.name=resnet{n}t")) for n in (10, 14)}
    assert len(names) == 2
    with pytest.raises(
        (MissingMandatoryValue, InterpolationResolutionError), match=r"Missing .*name"
    ):
        run_name(compose("backbone=timm"))
