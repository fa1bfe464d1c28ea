"""Others' checkpoints: wrappers and prefixes, formats, what only training needs, and bad files."""

import argparse
import gzip
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bnnbench.config import build_backbone, options
from bnnbench.records.checkpoints import (
    BadCheckpoint,
    Normalisation,
    load_weights,
    read_state_dict,
    warn_of_normalisation,
)
from bnnbench.records.states import find_state, without_prefixes

State = Mapping[str, Tensor]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network that no fresh one equals."""
    net = build_backbone("resnet20", "xnor")
    for parameter in net.parameters():
        parameter.data.add_(0.1)
    return net


def loads(file: Path, trained: nn.Module) -> None:
    fresh = build_backbone("resnet20", "xnor")
    load_weights(fresh, file)
    for key, value in trained.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "backbone.",
        "module._orig_mod.net.",
        "_orig_mod.module.",
        "net._orig_mod.",
        "model.module.backbone.",
        "model.model.",
    ],
)
def test_prefixes_in_any_nesting(prefix: str, trained: nn.Module, tmp_path: Path) -> None:
    state = {f"{prefix}{key}": value for key, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    loads(tmp_path / "a.pth", trained)


def test_what_a_wrapper_held_besides_is_left_out(trained: nn.Module, tmp_path: Path) -> None:
    state = {f"model.{key}": value for key, value in trained.state_dict().items()}
    state |= {"criterion.weight": torch.ones(3), "teacher.fc.bias": torch.ones(3)}
    state["n_averaged"] = torch.tensor(3)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    loads(tmp_path / "a.ckpt", trained)


def test_a_prefix_that_the_network_has_itself_stays() -> None:
    state = {"net.model.a.w": torch.ones(1)}
    assert without_prefixes(state, ["model.a.w"]).keys() == {"model.a.w"}
    assert without_prefixes(state, ["a.w"]).keys() == {"a.w"}
    assert without_prefixes({"backbone.a.w": torch.ones(1)}, ["backbone.a.w", "head.w"]).keys() == {
        "backbone.a.w"
    }


CONTAINERS: dict[str, Callable[[State], dict[str, Any]]] = {
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state},
    "state_dict": lambda state: {"model": "resnet20_1w1a", "state_dict": state, "best_prec1": 87.5},
    "ema": lambda state: {"ema": state, "step": 7},
    "model_ema, in another": lambda state: {"checkpoint": 1, "model": {"model_ema": state}},
    "a module in a state_dict": lambda state: {"state_dict": {"net": state}},
    "averages beside it": lambda state: {
        "state_dict_ema": {k: torch.zeros_like(v) for k, v in state.items()},
        "state_dict": state,
    },
    "numbers among tensors": lambda state: {**state, "epoch": 3},
    "a tensor beside it": lambda state: {"best_acc1": torch.tensor(88.0), "state_dict": state},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(CONTAINERS[name](trained.state_dict()), tmp_path / "a.pth")
    loads(tmp_path / "a.pth", trained)


def test_a_teacher_takes_the_moving_average_first() -> None:
    """As timm does."""
    content = {"state_dict": {"a.w": torch.ones(1)}, "state_dict_ema": {"a.w": torch.zeros(1)}}
    assert float(find_state(content, "a.pth")["a.w"]) == 1
    assert float(find_state(content, "a.pth", averages=True)["a.w"]) == 0


@pytest.mark.parametrize("name", ["a.safetensors", "renamed.bin"])
def test_safetensors(name: str, trained: nn.Module, tmp_path: Path) -> None:
    save_file(dict(trained.state_dict()), tmp_path / name)
    loads(tmp_path / name, trained)


def test_half_precision_is_widened(trained: nn.Module, tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    save_file(half, tmp_path / "a.safetensors")
    fresh = build_backbone("resnet20", "xnor")
    load_weights(fresh, tmp_path / "a.safetensors")
    for key, value in fresh.state_dict().items():
        assert value.dtype == trained.state_dict()[key].dtype
        assert torch.equal(value, half[key].to(value.dtype)), key


def test_numbers_that_are_none_are_refused_in_any_format(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "a.safetensors")
    with pytest.raises(BadCheckpoint, match=r"fc\.weight holds values that are no finite numbers"):
        read_state_dict(tmp_path / "a.safetensors")


# What each method keeps for training alone, by the ends of names.
OF_TRAINING = {
    "ovsw": ("signs", "flips"),
    "rebnn": ("signs", "flips"),
    "rbonn": (".u", "previous"),
    "bbb": ("rho",),
    "recu": ("tau",),
    "siman": ("percent",),
    "reste": (".o",),
    "slb": ("sharpness", "hard"),
    "fda": ("fc1", "fc2", "noise.alpha", "terms"),
    "admm": (".g", "rho"),
    "irnet": (".k", ".t"),
    "adabin": (".k", ".t"),
}


@pytest.mark.parametrize("quantizer", options("quantizer"))
def test_what_only_training_needs_may_be_missing(quantizer: str, tmp_path: Path) -> None:
    """And the network computes the same without it, whatever it was."""
    ends = (*OF_TRAINING.get(quantizer, ()), "num_batches_tracked")
    net = build_backbone("resnet20", quantizer)
    fresh = build_backbone("resnet20", quantizer)
    for name, buffer in net.named_buffers():
        if name.endswith(ends) and buffer.is_floating_point():
            buffer.uniform_(0.6, 0.9)
    for name, parameter in net.named_parameters():
        parameter.data.add_(0.1 * name.endswith(ends))
    state = {key: value for key, value in net.state_dict().items() if not key.endswith(ends)}
    torch.save(state, tmp_path / "a.pth")
    load_weights(fresh, tmp_path / "a.pth")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net.eval()(images), fresh.eval()(images))


@pytest.mark.parametrize(
    ("quantizer", "key"),
    [
        ("adabin", "activation_quantizer.alpha"),
        ("rbnn", "weight_quantizer.r1"),
        ("rbnn", "weight_quantizer.theta"),
        ("tbn", "running_delta"),
        ("lab", "weight_quantizer.v"),
        ("admm", "weight_quantizer.dual"),
        ("rebnn", "weight_quantizer.alpha"),
        ("recu", "output.scale"),
    ],
)
def test_what_a_forward_reads_may_not(quantizer: str, key: str, tmp_path: Path) -> None:
    net = build_backbone("resnet20", quantizer)
    state = {name: value for name, value in net.state_dict().items() if not name.endswith(key)}
    assert len(state) < len(net.state_dict())
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint, match=rf"missing, first .*{key}"):
        load_weights(net, tmp_path / "a.pth")


def _bytes(change: Callable[[bytes], bytes], **kind: Any) -> Callable[[Path], object]:
    def write(file: Path) -> None:
        torch.save({"fc.weight": torch.randn(64, 64)}, file, **kind)
        file.write_bytes(change(file.read_bytes()))

    return write


def _other_archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/weights.pth", b"weights")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda f: f.write_text("not a checkpoint\n"), "it is a text file; take another"),
    "json": (lambda f: f.write_text('{"weight_map": {}}'), "it is a text file; take another"),
    "page": (
        lambda f: f.write_text("\n<!DOCTYPE html><p>"),
        "a web page; download the file itself",
    ),
    "lfs": (lambda f: f.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "empty": (lambda f: f.write_bytes(b""), "it is empty; take another file"),
    "half": (_bytes(lambda b: b[: len(b) // 2]), "cut off or damaged; fetch it again"),
    "half of an old one": (
        _bytes(lambda b: b[: len(b) // 2], _use_new_zipfile_serialization=False),
        "cut off or damaged; fetch it again",
    ),
    "start of an old one": (
        _bytes(lambda b: b[:100], _use_new_zipfile_serialization=False),
        "cut off or damaged; fetch it again",
    ),
    "half of safetensors": (
        lambda f: (
            save_file({"a": torch.ones(999)}, f),
            f.write_bytes(f.read_bytes()[:999]),
        ),
        "cut off or damaged; fetch it again",
    ),
    "packed": (_bytes(gzip.compress), "a compressed archive; unpack it"),
    "zip": (_other_archive, "an archive of other files; unpack it, and name the"),
    "noise": (lambda f: f.write_bytes(bytes(range(256)) * 9), "damaged, or no checkpoint; take"),
    "whole model": (
        lambda f: torch.save(nn.Linear(2, 2), f),
        r"objects of torch\.nn\.modules\.linear\.Linear.*save its weights alone, in Python: torch",
    ),
    "arguments": (
        lambda f: torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, f),
        r"objects of argparse\.Namespace.*save its weights alone",
    ),
    "list": (lambda f: torch.save([1], f), "holds no state_dict but a list; take another file"),
    "optimiser": (
        lambda f: torch.save(torch.optim.SGD([torch.ones(1)], lr=1).state_dict(), f),
        "holds no state_dict but an optimiser's state: take the file that has the network's",
    ),
    "optimiser, wrapped": (
        lambda f: torch.save({"epoch": 3, "optimizer": {"state": {}, "param_groups": []}}, f),
        "holds no state_dict but an optimiser's state: take the file that has the network's",
    ),
    "epochs": (
        lambda f: torch.save({"epoch": 3, "best_acc": 3.1}, f),
        "holds no state_dict, only epoch, best_acc: take the file that has the network's",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_in_a_line_with_what_to_do(name: str, tmp_path: Path) -> None:
    write, words = BAD[name]
    write(tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint, match=words) as refused:
        read_state_dict(tmp_path / "a.pth")
    line = str(refused.value)
    assert line.startswith(f"{tmp_path}/a.pth ")
    assert "\n" not in line
    assert len(line) < 350 + len(str(tmp_path))


def test_another_normalisation_is_told_in_a_line() -> None:
    known = Normalisation([0.485, 0.456], [0.229, 0.224], "was trained on images with")
    with pytest.warns(UserWarning, match="this data set has others") as caught:
        warn_of_normalisation("init_from=a.pth", known, [0.4914, 0.456], [0.229, 0.224])
    (line,) = (str(each.message) for each in caught)
    assert line == (
        "init_from=a.pth was trained on images with mean 0.485,0.456 and std 0.229,0.224, this "
        'data set has others: for theirs add "dataset.mean=[0.485,0.456]" '
        '"dataset.std=[0.229,0.224]"'
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_normalisation("init_from=a.pth", known, [0.48502, 0.456], [0.229, 0.224])
        warn_of_normalisation("init_from=a.pth", known, [0.5], [0.5])  # other channels
        warn_of_normalisation("init_from=a.pth", None, [0.5], [0.5])
