"""Checkpoints that cannot be used say in one line why, wherever they are named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import nn

import bnnbench
from bnnbench.checks.errors import is_told
from bnnbench.records.fingerprint import content_hash
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.continued import origin_of
from bnnbench.runs.run import execute
from bnnbench.tasks.classification import Classification

Compose = Callable[..., DictConfig]
Files = dict[str, Path | str]


def config(content: dict[str, Any], group: str) -> dict[str, Any]:
    return content["bnnbench"]["config"][group]


def newer_backbone(content: dict[str, Any]) -> None:
    config(content, "backbone")["_target_"] = "bnnbench.backbones.resnet.resnet99"


def newer_quantizer(content: dict[str, Any]) -> None:
    config(content, "quantizer")["weight"]["_target_"] = "bnnbench.quantizers.newer.Newer"


# What is done to a good checkpoint, and what everybody is told of it.
EDITED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer_backbone": (newer_backbone, "resnet99 is not there .*the version that wrote this one"),
    "newer_quantizer": (newer_quantizer, "Newer is not there .*the version that wrote this one"),
    "newer_key": (lambda c: config(c, "backbone").update(warp=9), "cannot build what .*'warp'"),
    "no_group": (lambda c: c["bnnbench"]["config"].pop("quantizer"), "a config without quantizer"),
    "no_config": (
        lambda c: c["bnnbench"].pop("config"),
        r"was written without config; .*quantizer=\.\.\. backbone=\.\.\. dataset=\.\.\.",
    ),
    "no_name": (lambda c: c["bnnbench"].pop("name"), "was written without name"),
    "odd_config": (lambda c: c["bnnbench"].update(config=[1]), "was written without config"),
}
WRITTEN = {
    "cut": "it is cut off or damaged; fetch it again",
    "empty": "it is empty",
    "folder": r"it is a folder: give a checkpoint in it, such as checkpoints/last\.ckpt",
    "address": "it is a web address: download it, and give the path of the file",
    "nowhere": "there is no such file",
    "archive": "it is an archive of other files",
    "page": "it is a web page",
    "model": r"it holds objects of torch\.nn\.modules\.linear\.Linear",
}


@pytest.fixture
def good(compose: Compose, short: list[str]) -> Path:
    cfg = compose(*short, "quantizer=xnor", "trainer.max_epochs=1")
    execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    return Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"


@pytest.fixture
def files(good: Path, tmp_path: Path) -> Files:
    """Each bad file by its name in the tables above."""
    found: Files = {name: tmp_path / f"{name}.ckpt" for name in (*EDITED, *WRITTEN)}
    for name, (edit, _) in EDITED.items():
        content = torch.load(good, weights_only=True)
        edit(content)
        torch.save(content, found[name])
    Path(found["cut"]).write_bytes(good.read_bytes()[:50_000])
    Path(found["empty"]).touch()
    Path(found["page"]).write_text("<!DOCTYPE html><html></html>")
    with zipfile.ZipFile(found["archive"], "w") as archive:
        archive.write(good, "last.ckpt")
    torch.save(nn.Linear(1, 1), found["model"])
    return found | {"folder": good.parents[1], "address": "https://example.org/last.ckpt"}


def test_one_line_says_what_is_wrong_and_what_to_give(
    files: Files, compose: Compose, tmp_path: Path
) -> None:
    said = {name: words for name, (_, words) in EDITED.items()} | WRITTEN

    cfg = compose("train=false", "ckpt_path=x")

    def evaluated(path: Path | str) -> None:
        cfg.ckpt_path = str(path)
        execute(cfg, tmp_path / "out", quiet=True)

    (tmp_path / "out").mkdir()
    for name, words in said.items():
        for use in (bnnbench.load, Classification.load_from_checkpoint, evaluated):
            with pytest.raises(ValueError, match=words) as caught:
                use(files[name])
            assert "\n" not in str(caught.value), name
            assert is_told(caught.value)
    for name in ("folder", "address", "nowhere"):  # where the command line's checks meet it first
        with pytest.raises(FileNotFoundError, match=WRITTEN[name]):
            content_hash("ckpt_path", str(files[name]))
    for name in ("no_config", "odd_config", "cut", "address"):
        cfg.train, cfg.ckpt_path = True, str(files[name])
        with pytest.raises(ValueError, match=said[name]):
            origin_of(cfg)


def test_weights_alone_are_read_as_what_is_typed(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    net = bnnbench.build_backbone("resnet20", "xnor", in_channels=1, image_size=8)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    named = ["train=false", f"ckpt_path={tmp_path}/net.safetensors"]
    words = "was read as quantizer=adabin backbone=vgg_small dataset=digits: type those that it"
    with pytest.raises(ValueError, match=words):
        execute(compose(*named, "backbone=vgg_small"), tmp_path / "out", quiet=True)
    score = execute(compose(*short, *named, "quantizer=xnor"), tmp_path / "out", quiet=True)
    assert 0 <= score <= 1


def test_a_set_without_names_has_its_labels_for_them(good: Path, tmp_path: Path) -> None:
    content = torch.load(good, weights_only=True)
    content["bnnbench"]["classes"] = []
    torch.save(content, tmp_path / "nameless.ckpt")
    assert bnnbench.load(tmp_path / "nameless.ckpt").class_names == list("0123456789")


def test_an_evaluation_tells_all_that_it_found(
    good: Path, compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    named = ["train=false", f"ckpt_path={good}", "logger=none", "trainer.accelerator=cpu"]
    score = execute(compose(*named), tmp_path / "out", quiet=True, typed=named[:2])
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert f"{100 * score:.2f} % on 360 test images of digits\n" in out
    assert f"acc {100 * score:.2f} %" in out
    assert f"nll {record['test/nll']:.4g}" in out
    assert record["dataset"] == "digits"
    shares = record["classes"]["accuracy"]
    assert f"by class: 0 {100 * shares[0]:.1f} %, 1 " in out
    data = build_datamodule(compose())
    data.setup("test")
    counts = data.parts["test"][1].bincount().tolist()
    assert sum(n * s for n, s in zip(counts, shares, strict=True)) / 360 == pytest.approx(score)
    assert f"written to {tmp_path}/out/evaluation.json" in out
