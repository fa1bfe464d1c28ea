"""A classifier as ONNX gives the same logits in onnxruntime, for any number of images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bnnbench.packing.onnx import export_onnx
from bnnbench.packing.sides import NotPackable
from bnnbench.records.signature import Signature
from bnnbench.runs.trained import Trained
from bnnbench.runtime.check import check_images
from bnnbench.tasks.rebuilt import Described


def trained(net: nn.Module, task: str = "classification") -> Trained:
    """As a checkpoint gives it."""
    dataset = {"in_channels": 3, "image_size": 16, "_target_": "x", "task": task}
    parts = "run", "0" * 64, None, {}, None, [str(n) for n in range(10)], [0.0] * 3, [1.0] * 3
    return Trained(net, Described({}, Signature(*parts), {"dataset": dataset}))


@pytest.mark.parametrize("method", ["xnor", "adabin", "dorefa", "siman", "bwn"])
def test_logits_are_the_networks(method: str, network, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs bnnbench[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs bnnbench[onnx]")
    net = network(method)
    file = tmp_path / "new" / "net.onnx"
    export_onnx(trained(net), file)
    assert [each.name for each in file.parent.iterdir()] == ["net.onnx"]
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for count in (1, 2, 33):
        images = check_images((3, 16, 16), count, seed=7)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = net(images)
        assert logits.shape == expected.shape
        away = (torch.from_numpy(logits) - expected).abs().amax(1) / expected.abs().max()
        assert int((away < 1e-4).sum()) >= count - count // 8  # but for ties


def test_a_detector_says_that_it_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotPackable, match="run is a detector: format=onnx is for classifiers"):
        export_onnx(trained(nn.Identity(), "detection"), tmp_path / "net.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package != "onnxruntime":
        pytest.importorskip("onnxruntime", reason="needs bnnbench[onnx]")
    with pytest.raises(ValueError, match=rf"needs {package}: pip install bnnbench\[onnx\]"):
        export_onnx(trained(nn.Identity()), tmp_path / "net.onnx")
