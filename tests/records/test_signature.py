"""Checkpoints say whose they are, and notice what happened to them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bnnbench.records.signature import (
    KEY,
    BadCheckpoint,
    Signature,
    check_belongs,
    check_signature,
    is_finite,
    read_checkpoint,
    sign,
    signature_of,
)

OWN = Signature(
    name="digits_resnet20_xnor_task_unified_s0_12345678",
    fingerprint="f" * 64,
    stage=None,
    config={"quantizer": {"name": "xnor"}, "seed": 0},
    data_stamp="sha256:aaaa",
    classes=["zero", "one"],
    mean=[0.5],
    std=[0.25],
)


def content() -> dict[str, Any]:
    return {
        "state_dict": {"net.weight": torch.arange(6.0).view(2, 3), "net.count": torch.tensor(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2, 3, dtype=torch.bfloat16)}}}],
        "callbacks": {"x": {"mask": torch.tensor([True, False]), "none": torch.empty(0)}},
        "epoch": 4,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    checkpoint = content()
    sign(checkpoint, OWN)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_says_whose_it_is(file: Path) -> None:
    assert signature_of(read_checkpoint(file)) == OWN
    check_signature(file, OWN)
    check_belongs(file, OWN.fingerprint)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "0" * 64, "config": {"quantizer": {"name": "dorefa"}, "seed": 0}},
         "quantizer.name=xnor, here dorefa"),
        ({"fingerprint": "0" * 64, "config": {"quantizer": {"name": "xnor"}, "seed": 1}},
         "seed=0, here 1"),
        ({"stage": "sign"}, "another stage"),
        ({"data_stamp": "sha256:bbbb"}, "other data of the same name"),
    ],
)  # fmt: skip
def test_refuses_to_go_on_for_another_run(
    file: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadCheckpoint, match=message) as refused:
        check_signature(file, replace(OWN, **changed))
    assert "init_from=<file>" in str(refused.value)


def test_an_unknown_stamp_contradicts_nothing(file: Path) -> None:
    check_signature(file, replace(OWN, data_stamp=None))


def test_a_file_without_signature_is_not_gone_on_from(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "last.ckpt")
    with pytest.raises(BadCheckpoint, match="does not say which run"):
        check_signature(tmp_path / "last.ckpt", OWN)
    with pytest.warns(UserWarning, match="does not say which run"):
        check_belongs(tmp_path / "last.ckpt", OWN.fingerprint)


def test_a_file_of_another_run_is_not_the_folder_s(file: Path) -> None:
    with pytest.raises(BadCheckpoint, match=f"belongs to another run, {OWN.name}"):
        check_belongs(file, "0" * 64)


@pytest.mark.parametrize(
    ("place", "index"),
    [
        (("state_dict", "net.weight"), (1, 2)),
        (("state_dict", "net.count"), ()),
        (("optimizer_states", 0, "state", 0, "exp_avg"), (0, 1)),
        (("callbacks", "x", "mask"), (1,)),
    ],
)
def test_rot_in_any_tensor_is_noticed(file: Path, place: tuple, index: tuple) -> None:
    damaged = torch.load(file, weights_only=True)
    node: Any = damaged
    for key in place:
        node = node[key]
    node[index] = node[index] == 0 if node.dtype == torch.bool else node[index] + 1
    torch.save(damaged, file)
    with pytest.raises(BadCheckpoint, match=f"damaged.*{'/'.join(map(str, place))}"):
        read_checkpoint(file)


def test_a_tensor_lost_or_added_is_noticed(file: Path) -> None:
    damaged = torch.load(file, weights_only=True)
    del damaged["state_dict"]["net.count"]
    torch.save(damaged, file)
    with pytest.raises(BadCheckpoint, match=r"net\.count"):
        read_checkpoint(file)


def test_rot_outside_of_tensors_is_noticed(file: Path) -> None:
    damaged = torch.load(file, weights_only=True)
    damaged["epoch"] = 5
    torch.save(damaged, file)
    with pytest.raises(BadCheckpoint, match="what is no tensor"):
        read_checkpoint(file)


@pytest.mark.parametrize("signed", [5, {"checksums": 3}, {"name": "a"}])
def test_a_damaged_signature_is_told(file: Path, signed: Any) -> None:
    damaged = torch.load(file, weights_only=True)
    damaged[KEY] = signed
    torch.save(damaged, file)
    with pytest.raises(BadCheckpoint, match="checksums are gone"):
        read_checkpoint(file)
    del damaged[KEY]
    sign(damaged, None)
    damaged[KEY]["name"] = "a"
    with pytest.raises(BadCheckpoint, match="it lacks"):
        signature_of(damaged)


def test_signing_again_counts_no_signature(file: Path) -> None:
    checkpoint = read_checkpoint(file)
    before = checkpoint[KEY]["checksums"]
    sign(checkpoint, OWN)
    assert checkpoint[KEY]["checksums"] == before


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([3e38, 3e38], True),  # whose sum is not
        ([3e38, 3e38, -3e38, -3e38], True),
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([], True),
    ],
)
def test_finite_is_what_every_element_is(values: list[float], finite: bool) -> None:
    assert is_finite(torch.tensor(values)) == finite
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite("text")
