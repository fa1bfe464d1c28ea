"""Others' weights in runs: evaluated, started from and taught with, under a map of their names."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from bnnbench.config import build_backbone
from bnnbench.records.checkpoints import BadCheckpoint
from bnnbench.records.signature import Signature, sign
from bnnbench.runs.build import build_task
from bnnbench.runs.run import execute
from bnnbench.runs.teacher import build_teacher

SMALL = ("quantizer=fp32", "backbone=resnet20", "logger=none", "trainer.enable_progress_bar=false")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A network for digits, whose convolutions have names of their own."""
    net = build_backbone("resnet20", "fp32", in_channels=1, image_size=8)
    state = {key.replace("conv", "convolution"): value for key, value in net.state_dict().items()}
    torch.save({"model_state_dict": state}, tmp_path / "weights.pth")
    (tmp_path / "names.yaml").write_text("names: {convolution: conv}\nmean: [0.9]\nstd: [0.1]\n")
    return tmp_path


def test_an_evaluation_under_a_map(compose: Any, foreign: Path) -> None:
    named = [f"ckpt_path={foreign}/weights.pth", f"checkpoint_map={foreign}/names.yaml"]
    cfg = compose(*SMALL, "train=false", *named)
    (foreign / "out").mkdir()
    (foreign / "out" / "evaluation.json").write_text("{")  # damaged, and costs no evaluation
    words = r"ckpt_path=.*weights\.pth has names of checkpoint_map=.*names\.yaml, whose authors "
    words += r'normalise with mean 0\.9 and std 0\.1.*add "dataset\.mean=\[0\.9\]"'
    with pytest.warns(UserWarning, match=words):
        score = execute(cfg, foreign / "out", quiet=True)
    record = json.loads((foreign / "out" / "evaluation.json").read_text())
    assert record["checkpoint"] == "weights.pth"
    assert record["test/acc"] == score
    with pytest.raises(BadCheckpoint, match="name a map: checkpoint_map=adabin, "):
        execute(compose(*SMALL, "train=false", named[0]), foreign / "without", quiet=True)


def test_a_start_under_a_map(compose: Any, foreign: Path) -> None:
    named = [f"init_from={foreign}/weights.pth", f"checkpoint_map={foreign}/names.yaml"]
    with pytest.warns(UserWarning, match="init_from=.*whose authors normalise with"):
        task = build_task(compose("quantizer=adabin", "backbone=resnet20", *named))
    theirs = torch.load(foreign / "weights.pth", weights_only=True)["model_state_dict"]
    own = task.net.state_dict()
    assert torch.equal(own["stages.0.0.conv1.weight"], theirs["stages.0.0.convolution1.weight"])


def test_a_start_from_weights_of_other_pixels_is_told(compose: Any, foreign: Path) -> None:
    """A checkpoint of the suite says how its images were normalised."""
    net = build_backbone("resnet20", "fp32", in_channels=1, image_size=8)
    content: dict[str, Any] = {"state_dict": net.state_dict()}
    of_it = Signature("run", "0" * 64, None, {}, None, ["a"], [0.25], [0.5])
    sign(content, of_it)
    torch.save(content, foreign / "last.ckpt")
    start = f"init_from={foreign}/last.ckpt"
    words = r"last\.ckpt was trained on images with mean 0\.25 and std 0\.5, this data set has"
    with pytest.warns(UserWarning, match=words):
        build_task(compose("quantizer=fp32", "backbone=resnet20", start))


def test_a_teacher_under_a_map(compose: Any, tmp_path: Path) -> None:
    """Its names are timm's, below those that the network has for its wrapper."""
    model = timm.create_model("resnet10t", num_classes=10, in_chans=1)
    state = {f"student.{key}": value for key, value in model.state_dict().items()}
    torch.save({"net": state}, tmp_path / "teacher.pth")
    (tmp_path / "names.yaml").write_text("names: {'^student\\.': ''}\n")
    words = ["loss=kd", "teacher=timm", "teacher.model=resnet10t"]
    words += [f"teacher.checkpoint={tmp_path}/teacher.pth"]
    words += [f"checkpoint_map={tmp_path}/names.yaml"]
    teacher = build_teacher(compose("backbone=resnet20", *words), {})
    assert teacher is not None
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(teacher(images), model.eval()(images))
