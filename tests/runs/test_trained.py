"""A network loaded from its checkpoint alone says what the one that was trained said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import bnnbench
from bnnbench.records.foreign import Untrusted
from bnnbench.records.signature import BadCheckpoint
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.run import execute

Compose = Callable[..., DictConfig]


def checkpoint(cfg: DictConfig) -> Path:
    return Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("quantizer", ["adabin", "fp32"])
def test_a_checkpoint_alone_gives_the_accuracy_of_its_run(
    compose: Compose, short: list[str], quantizer: str
) -> None:
    cfg = compose(*short, f"quantizer={quantizer}")
    score = execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    trained = bnnbench.load(checkpoint(cfg))
    data = build_datamodule(cfg)
    data.setup()
    images, labels = data.parts["test"]
    with torch.no_grad():
        found = trained(images).argmax(1)
        assert torch.equal(found, trained(images / 255).argmax(1))
    assert float((found == labels).float().mean()) == pytest.approx(score, abs=1e-6)
    assert not any(module.training for module in trained.modules())
    assert (trained.task, trained.class_names) == ("classification", list("0123456789"))
    assert (trained.in_channels, trained.image_size) == (1, 8)
    with pytest.raises(ValueError, match=r"takes images \(N, 1, 8, 8\), not \(2, 3, 8, 8\)"):
        trained(torch.zeros(2, 3, 8, 8))


def test_a_detectors_checkpoint_says_so(compose: Compose) -> None:
    cfg = compose(
        "quantizer=xnor", "backbone=ssd300_resnet18", "dataset=shapes", "trainer.max_epochs=1",
        "dataset.generate={trainval: 8, test: 4, size: 64, seed: 0}", "dataset.image_size=64",
        "logger=none", "trainer.accelerator=cpu",
    )  # fmt: skip
    execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    trained = bnnbench.load(checkpoint(cfg))
    assert (trained.task, trained.class_names) == ("detection", ["rectangle", "cross", "triangle"])
    with torch.no_grad():
        (found,) = trained.net.detect(trained(torch.rand(1, 3, 64, 64)))
    assert set(found) == {"boxes", "scores", "labels"}


def test_weights_that_do_not_say_what_they_are_tell_what_to_do(tmp_path: Path) -> None:
    net = bnnbench.build_backbone("resnet20", quantizer="xnor", num_classes=10)
    torch.save(net.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(BadCheckpoint, match=r"does not say what network it is: .*build_backbone"):
        bnnbench.load(tmp_path / "plain.pt")
    with pytest.raises(BadCheckpoint, match="there is no checkpoint"):
        bnnbench.load(tmp_path / "nowhere.ckpt")


def test_code_of_others_needs_their_packages_name(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    cfg = compose(*short, "quantizer=xnor", "trainer.max_epochs=1")
    execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    content = torch.load(checkpoint(cfg), weights_only=True)
    content["bnnbench"]["config"]["backbone"]["_target_"] = "elsewhere.net"
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(Untrusted, match=r"trust=\[elsewhere\]"):
        bnnbench.load(tmp_path / "foreign.ckpt")
