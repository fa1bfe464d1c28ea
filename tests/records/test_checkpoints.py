"""Checkpoints: round trips, published layouts, and errors that name what is wrong."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bnnbench.config import build_backbone, load_quantizer, options
from bnnbench.layers import set_progress
from bnnbench.records.checkpoints import BadCheckpoint, load_weights, read_state_dict

CLASSIFIERS = [name for name in options("backbone") if not name.startswith(("ssd300_", "timm"))]

REFERENCE = load_quantizer("adabin", activation_center="reference")


def _perturbed(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.data.add_(0.1)
    return net


def _assert_same(a: nn.Module, b: nn.Module) -> None:
    other = b.state_dict()
    for key, value in a.state_dict().items():
        assert torch.equal(value, other[key]), key


def _save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("quantizer", options("quantizer"))
def test_round_trip(quantizer, wrapped, tmp_path):
    """A plain state dict, and what a LightningModule saves: `net.`, metrics, other entries."""
    trained, fresh = (build_backbone("resnet20", quantizer) for _ in range(2))
    set_progress(_perturbed(trained), 3, 4)
    content: dict = dict(trained.state_dict())
    if wrapped:
        state = {f"net.{key}": value for key, value in content.items()}
        state["train_acc.correct"] = torch.tensor(3)
        content = {"epoch": 3, "state_dict": state, "callbacks": {}, "optimizer_states": [{}]}
    load_weights(fresh, _save(tmp_path / "last.ckpt", content))
    _assert_same(trained, fresh)


def _published_names(blocks: int, adabin: bool) -> list[str]:
    """Keys of the released CIFAR ResNet-20s (option-A shortcuts have no weights)."""
    norm = ["weight", "bias", "running_mean", "running_var"]
    if adabin:  # the older full-precision file was written before torch counted batches
        norm.append("num_batches_tracked")
    keys = ["conv1.weight", *(f"bn1.{n}" for n in norm), "linear.weight", "linear.bias"]
    if adabin:
        keys += [*(f"bn2.{n}" for n in norm), "nonlinear1.neg_scale", "nonlinear1.pos_scale"]
    for stage in (1, 2, 3):
        for conv in (f"layer{stage}.{block}.%s{c}" for block in range(blocks) for c in (1, 2)):
            keys += [conv % "conv" + ".weight", *(conv % "bn" + f".{n}" for n in norm)]
            if adabin:
                keys += [conv % "conv" + f".binary_a.{n}_a" for n in ("alpha", "beta")]
                keys += [conv % "nonlinear" + f".{n}_scale" for n in ("neg", "pos")]
    return [f"module.{key}" for key in keys]


def _published(net: nn.Module, adabin: bool) -> dict[str, Tensor]:
    """A released file's state dict: random tensors, shaped by an independent renaming of keys."""
    own = net.state_dict()
    state = {}
    for key in _published_names(3, adabin):
        _, _, name = key.partition(".")
        parts = name.split(".")
        if parts[0].startswith("layer"):
            parts[0] = f"stages.{int(parts[0][-1]) - 1}"
        else:
            parts[0] = {"linear": "fc", "bn2": "head_norm"}.get(parts[0], parts[0])
        mapped = ".".join(parts).replace("nonlinear", "act").replace("pos_scale", "positive")
        mapped = mapped.replace("neg_scale", "negative").replace("binary_a", "activation_quantizer")
        mapped = mapped.removesuffix("_a")
        state[key] = torch.rand(own[mapped].shape).to(own[mapped].dtype)
    return state


@pytest.mark.parametrize("adabin", [False, True])
def test_published_layouts_load_strictly_and_completely(adabin, tmp_path):
    net = build_backbone("resnet20", REFERENCE if adabin else "fp32")
    published = _published(net, adabin)
    assert len(published) == (195 if adabin else 97)
    load_weights(net, _save(tmp_path / "model.th", {"state_dict": published, "best_prec1": 88.0}))
    state = net.state_dict()
    last = "layer3.2.%s"
    pairs = {"linear.bias": "fc.bias", last % "bn2.running_var": "stages.2.2.bn2.running_var"}
    if adabin:
        pairs |= {
            "bn2.weight": "head_norm.weight",
            "nonlinear1.pos_scale": "act1.positive",
            last % "nonlinear2.neg_scale": "stages.2.2.act2.negative",
            last % "conv1.binary_a.alpha_a": "stages.2.2.conv1.activation_quantizer.alpha",
            last % "conv1.binary_a.beta_a": "stages.2.2.conv1.activation_quantizer.beta",
        }
    for theirs, ours in pairs.items():
        assert torch.equal(published[f"module.{theirs}"], state[ours]), theirs
    not_stored = ("schedule.k", "schedule.t", "activation_quantizer.reference")
    if not adabin:
        not_stored += ("num_batches_tracked",)
    assert len([key for key in state if not key.endswith(not_stored)]) == len(published)


def test_released_adabin_weights_are_refused_by_the_papers_form(tmp_path):
    """They would load, and score 38 % instead of 88 %."""
    path = _save(tmp_path / "model.th", _published(build_backbone("resnet20", REFERENCE), True))
    with pytest.raises(BadCheckpoint, match=r"set quantizer\.activation_center=reference"):
        load_weights(build_backbone("resnet20", "adabin"), path)


def test_the_real_published_resnet20_loads(shared_data):
    path = shared_data / "checkpoints" / "resnet20_fp32_cifar10.th"
    net = build_backbone("resnet20", "fp32")
    load_weights(net, path)
    raw = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = net.state_dict()
    assert len([key for key in state if "num_batches" not in key]) == len(raw)
    assert torch.equal(state["stages.1.0.conv1.weight"], raw["module.layer2.0.conv1.weight"])
    assert torch.equal(state["fc.weight"], raw["module.linear.weight"])


def test_missing_file(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"there is no checkpoint at .*absent\.ckpt"):
        read_state_dict(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_file(damage, tmp_path):
    path = _save(tmp_path / "last.ckpt", build_backbone("resnet20").state_dict())
    content = path.read_bytes()
    damaged = {"truncated": content[: len(content) // 2], "text": b"not a checkpoint", "empty": b""}
    path.write_bytes(damaged[damage])
    with pytest.raises(BadCheckpoint, match=r"last\.ckpt cannot be read as a checkpoint"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": 3},
        {"state_dict": {}},
        {"state_dict": [1, 2]},
        {"state_dict": torch.ones(3)},
        {"state_dict": {"a": 1}},
        {0: torch.ones(1)},
        [torch.ones(1)],
        torch.ones(3),
    ],
    ids=str,
)
def test_file_without_a_state_dict(content, tmp_path):
    with pytest.raises(BadCheckpoint, match=r"x\.ckpt holds no state_dict"):
        read_state_dict(_save(tmp_path / "x.ckpt", content))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (("wrn22", {}), "8 other shape, first stages.1.0.bn1"),
        (("vgg_small", {}), "unexpected, first features"),
        (("resnet20", {"num_classes": 7}), "2 other shape, first fc.weight"),
        (("resnet20", {"in_channels": 1}), "1 other shape, first conv1.weight"),
        (("resnet20", {"downsample": "conv"}), "unexpected, first stages.1.0.downsample"),
    ],
)
def test_checkpoint_of_another_network(other, difference, strict, tmp_path):
    name, overrides = other
    path = _save(tmp_path / "x.ckpt", build_backbone(name, **overrides).state_dict())
    net = build_backbone("resnet20")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(BadCheckpoint, match=f"x.ckpt is a checkpoint of another.*{difference}"):
        load_weights(net, path, strict=strict)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_strictness_is_the_default(tmp_path):
    path = _save(tmp_path / "x.ckpt", build_backbone("resnet20", "fp32").state_dict())
    with pytest.raises(BadCheckpoint, match=r"missing, first .*head_norm"):
        load_weights(build_backbone("resnet20", "adabin"), path)


# Large, and the weights of each are named as a smaller one's.
LARGE = ("resnet18", "resnet34", "vgg16", "wrn40")
FEW = ("xnor", "adabin", "bonn", "wage", "r2b")


@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_full_precision_weights_start_every_method(backbone, tmp_path):
    full = _perturbed(build_backbone(backbone, "fp32", image_size=8))
    path = _save(tmp_path / "fp32.ckpt", {"state_dict": full.state_dict()})
    downsample = full.structure.downsample  # parameter-free in some methods
    same = {"downsample": downsample} if downsample else {}
    for quantizer in FEW if backbone in LARGE else options("quantizer"):
        norms = {"norm": "batch"} if quantizer in ("abbnn", "wage") else {}
        own = {"wage": {"bias": True}, "r2b": {"block": "basic"}}.get(quantizer, {})
        spec = load_quantizer(quantizer, **norms, **own)
        net = build_backbone(backbone, spec, image_size=8, **same)
        load_weights(net, path, strict=False)
        started = net.state_dict()
        for key, value in full.state_dict().items():
            assert torch.equal(started[key], value), (quantizer, key)
