"""``bnnbench export``: what is typed and written; the file is taken as a checkpoint."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

import bnnbench
from bnnbench.commands import export as command
from bnnbench.commands.export import Options, exported, parsed, place_of
from bnnbench.commands.predict import Options as Predict
from bnnbench.commands.predict import predicted
from bnnbench.packing.sides import NotPackable
from bnnbench.records.signature import BadCheckpoint
from bnnbench.runs.run import execute
from bnnbench.runtime import BadPackedFile
from bnnbench.runtime.format import header_bytes

Compose = Callable[..., DictConfig]
SHAPES = (
    "backbone=ssd300_resnet18", "dataset=shapes", "dataset.image_size=64", "trainer.max_epochs=1",
    "dataset.generate={trainval: 8, test: 6, size: 64, seed: 0}", "trainer.accelerator=cpu",
    "logger=none",
)  # fmt: skip


@pytest.fixture
def trained(compose: Compose, short: list[str]) -> Callable[..., Path]:
    """Trains a moment: ``trained("quantizer=xnor")`` gives the checkpoint."""

    def run(*overrides: str) -> Path:
        detector = any(word.startswith("dataset=shapes") for word in overrides)
        start = [] if detector else [*short, "trainer.max_epochs=1"]
        cfg = compose(*start, *overrides)
        execute(cfg, Path(cfg.paths.output_dir), quiet=True)
        return Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"

    return run


def said(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """How the command ends."""
    monkeypatch.setattr(sys, "argv", ["bnnbench export", *words])
    with pytest.raises(SystemExit) as ended:
        command.run()
    return str(ended.value)


def test_words_become_options() -> None:
    words = ["ckpt_path=a=b.ckpt", "output=o", "format=onnx", "trust=[mypkg,other]"]
    assert parsed(words) == Options("a=b.ckpt", "o", "onnx", False, ["mypkg", "other"])
    assert parsed(["ckpt_path=a", "half=True"]).half


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("half=true", "give ckpt_path=<checkpoint of a run>"),
        ("ckpt_path=", "give ckpt_path="),
        ("ckpt_pth=x", "ckpt_pth=x: no such key; did you mean ckpt_path?"),
        ("x.ckpt", "x.ckpt: no such key; there are ckpt_path, output, format, half, trust"),
        ("ckpt_path=x format=tflite", "format=tflite: choose one of packed, onnx"),
        ("ckpt_path=x half=1", "half=1: choose true or false"),
        ("ckpt_path=x half=true format=onnx", "half=true is for format=packed, not onnx"),
    ],
)
def test_mistakes_say_what_to_type(words: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parsed(words.split())


def test_the_file_lies_beside_the_checkpoint_unless_said() -> None:
    assert place_of(Options("a/last.ckpt")) == Path("a/last.safetensors")
    assert place_of(Options("a/last.ckpt", format="onnx")) == Path("a/last.onnx")
    assert place_of(Options("a/last.ckpt", "b.bin")) == Path("b.bin")


def test_places_that_cannot_be_written_are_told_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ckpt = f"ckpt_path={tmp_path}/nowhere.ckpt"
    assert "is a folder: give a file in it" in said(monkeypatch, ckpt, f"output={tmp_path}")
    inside = said(monkeypatch, ckpt, f"output={tmp_path}/file/net.safetensors")
    assert "file is a file: set output=<another file>" in inside
    itself = said(monkeypatch, f"ckpt_path={tmp_path}/file", f"output={tmp_path}/file")
    assert "is the checkpoint itself: give another file" in itself
    monkeypatch.setattr(os, "access", lambda *_: False)
    closed = said(monkeypatch, ckpt, f"output={tmp_path}/new/net.safetensors")
    assert f"{tmp_path} cannot be written to: set output=<another file>" in closed
    assert not (tmp_path / "new").exists()


def test_what_is_no_checkpoint_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"w": torch.ones(2)}, tmp_path / "foreign.ckpt")
    net = bnnbench.build_backbone("resnet20", "xnor", in_channels=1, image_size=8)
    bnnbench.export(net, tmp_path / "net.safetensors", (1, 8, 8))
    for name, told in (
        ("nowhere.ckpt", "there is no such file"),
        ("empty.ckpt", "it is empty"),
        ("foreign.ckpt", "does not say what network it is"),
        ("", "it is a folder"),
        ("net.safetensors", "does not say on what it was trained"),
    ):
        line = said(monkeypatch, f"ckpt_path={tmp_path}/{name}", f"output={tmp_path}/o")
        assert line.startswith("error: ")
        assert told in line
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("quantizer=twn", r"stages\.0\.0\.conv1 \(TWNWeight\) has weights of 2 bits"),
        ("quantizer=abcnet", r"stages\.0\.0\.conv1 \(ABCNetWeight\) has weights of 5 bases"),
        ("quantizer=dorefa quantizer.weight_bits=4", r"\(DoReFaWeight\) has weights of 4 bits"),
    ],
)
def test_a_method_that_cannot_be_packed_names_the_layer(
    trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    checkpoint = trained(*words.split())
    assert re.search(told, said(monkeypatch, f"ckpt_path={checkpoint}"))
    assert not checkpoint.with_suffix(".safetensors").exists()
    assert not (checkpoint.parents[1] / "packed.json").exists()


def test_a_classifier_is_taken_as_its_checkpoint(
    trained: Callable[..., Path],
    compose: Compose,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = trained("quantizer=adabin")
    exported(Options(str(checkpoint)))
    told, file = capsys.readouterr().out, checkpoint.with_suffix(".safetensors")
    assert f"Written to {file}" in told
    assert "18 layers of 1-bit weights and activations" in told
    assert "Its run's tables show this size" in told
    record = json.loads((checkpoint.parents[1] / "packed.json").read_text())["export"]
    assert (record["bytes"], record["half"]) == (file.stat().st_size, False)
    exported(Options(str(checkpoint), str(tmp_path / "new" / "half.safetensors"), half=True))
    half = tmp_path / "new" / "half.safetensors"
    assert half.stat().st_size < file.stat().st_size
    assert json.loads((checkpoint.parents[1] / "packed.json").read_text())["export"]["half"]
    again = said(monkeypatch, f"ckpt_path={file}", f"output={tmp_path}/again")
    assert "is packed already: give the run's checkpoint" in again
    records = [evaluated(compose, each, tmp_path / each.suffix[1:]) for each in (checkpoint, file)]
    assert [each.pop("packed") for each in records] == [False, True]
    own, packed = records
    assert own["test/acc"] == pytest.approx(packed["test/acc"], abs=1.01 / own["images"])
    assert own["classes"]["names"] == packed["classes"]["names"]
    assert own["test/nll"] == pytest.approx(packed["test/nll"], rel=1e-2)  # one tie, one image
    for number in range(3):
        pixels = torch.randint(0, 256, (8, 8), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.byte().numpy()).save(tmp_path / f"{number}.png")
    assert_alike(checkpoint, file, tmp_path, 1e-4)


def evaluated(compose: Compose, file: Path, folder: Path) -> dict:
    """What ``evaluation.json`` holds."""
    folder.mkdir()
    words = ["train=false", f"ckpt_path={file}"]
    cfg = compose(*words, "logger=none", "trainer.accelerator=cpu")
    execute(cfg, folder, quiet=True, typed=words)
    return json.loads((folder / "evaluation.json").read_text())


def assert_alike(
    checkpoint: Path, file: Path, folder: Path, close: float, score: float | None = None
) -> None:
    """Both predict the same of the images in ``folder``, line by line."""
    lines = []
    for source in (checkpoint, file):
        out = folder / f"out_{source.suffix[1:]}"
        assert predicted(Predict(str(source), [str(folder / "*.png")], str(out), score=score)) == 0
        lines.append([json.loads(line) for line in (out / "predictions.jsonl").open()])
    for own, packed in zip(*lines, strict=True):
        assert own["file"] == packed["file"]
        assert own["predictions"]
        for a, b in zip(own["predictions"], packed["predictions"], strict=True):
            assert a["label"] == b["label"]
            assert a["score"] == pytest.approx(b["score"], abs=close)
            assert a.get("box") == pytest.approx(b.get("box"), abs=0.11)


def test_a_detector_is_taken_as_its_checkpoint(
    trained: Callable[..., Path], compose: Compose, tmp_path: Path
) -> None:
    checkpoint = trained("quantizer=adabin", *SHAPES)
    exported(Options(str(checkpoint)))
    file = checkpoint.with_suffix(".safetensors")
    records = [evaluated(compose, each, tmp_path / each.suffix[1:]) for each in (checkpoint, file)]
    own, packed = records
    assert packed["packed"]
    for key in (key for key in own if key.startswith("test/")):
        assert own[key] == pytest.approx(packed[key], rel=1e-2, abs=0.02), key
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 120, 3), generator=draw).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "0.png")
    assert_alike(checkpoint, file, tmp_path, 1e-3, score=0.02)
    with pytest.raises(NotPackable, match="is a detector: format=onnx is for classifiers"):
        exported(Options(str(checkpoint), format="onnx"))


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "folder"])
def test_a_damaged_packed_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """Wherever a checkpoint is named; the first bytes tell whether it is a packed one."""
    net = bnnbench.build_backbone("resnet20", "xnor", in_channels=1, image_size=8)
    file = bnnbench.export(net, tmp_path / "net.safetensors", (1, 8, 8))
    data = bytearray(file.read_bytes())
    if kind == "flipped":
        data[-100] ^= 1
    cut = {"empty": 0, "cut": header_bytes(file) + 100}.get(kind, len(data))
    file.write_bytes(data[:cut])
    if kind == "folder":
        file.unlink()
        file.mkdir()
    with pytest.raises((BadCheckpoint, BadPackedFile)) as told:
        bnnbench.load(file)
    assert "\n" not in str(told.value)
    assert said(monkeypatch, f"ckpt_path={file}", f"output={tmp_path}/o") == f"error: {told.value}"
