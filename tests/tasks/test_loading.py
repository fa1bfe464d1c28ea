"""A task loaded from its checkpoint alone is the one that was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

import bnnbench
from bnnbench.data.base import ImageData
from bnnbench.optim.recipe import Recipe
from bnnbench.records.foreign import Untrusted
from bnnbench.records.signature import BadCheckpoint, read_checkpoint, signature_of
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.run import execute
from bnnbench.tasks.classification import Classification
from bnnbench.tasks.detection import Detection

Compose = Callable[..., DictConfig]
DETECTOR = (
    "quantizer=xnor", "backbone=ssd300_resnet18", "dataset=shapes", "trainer.max_epochs=1",
    "dataset.generate={trainval: 8, test: 4, size: 64, seed: 0}", "dataset.image_size=64",
    "logger=none", "trainer.accelerator=cpu",
)  # fmt: skip


class Wider(Classification):
    """Somebody's own, with an argument and a layer more."""

    def __init__(self, *args: Any, width: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = nn.Linear(width, width)


def trained(cfg: DictConfig) -> tuple[Path, float]:
    """The last checkpoint of a run, and its headline."""
    folder = Path(cfg.paths.output_dir)
    score = execute(cfg, folder, quiet=True)
    (file,) = sorted(folder.glob("**/last.ckpt"))[-1:]
    return file, score


def trainer(**options: Any) -> L.Trainer:
    """Anybody's, quiet."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **options)


def data_of(cfg: DictConfig) -> ImageData:
    return build_datamodule(cfg)


def test_a_checkpoint_alone_gives_the_score_of_its_run(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "quantizer=adabin", "recipe.lr=0.003", "loss.label_smoothing=0.1")
    file, score = trained(cfg)
    task = Classification.load_from_checkpoint(file)
    assert not any(module.training for module in task.modules())
    assert (task.class_names, task.signature) == (list("0123456789"), None)
    known = signature_of(read_checkpoint(file))
    assert known is not None
    assert (task.mean, task.std) == (known.mean, known.std)
    assert (task.recipe.lr, task.loss.label_smoothing) == (0.003, 0.1)
    (found,) = trainer().test(task, data_of(cfg), verbose=False)
    assert found["test/acc"] == pytest.approx(score, abs=1e-6)
    plain, images = bnnbench.load(file), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(task((images - plain.mean) / plain.std), plain(images))
    for place in ("cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, _: storage):
        assert Classification.load_from_checkpoint(file, map_location=place).device.type == "cpu"
    assert Classification.load_from_checkpoint(file, map_location="meta").device.type == "meta"
    _check_overrides(file)


def _check_overrides(file: Path) -> None:
    """What Lightning's users give by keyword is the caller's, and the rest the checkpoint's."""
    load = Classification.load_from_checkpoint
    assert load(file, recipe=Recipe("sgd", 0.5)).recipe.optimizer == "sgd"
    wider = Wider.load_from_checkpoint(file, width=5, strict=False)
    assert (type(wider), wider.extra.in_features) == (Wider, 5)
    with pytest.raises(BadCheckpoint, match=r"2 tensors beside the network's differ, first extra"):
        Wider.load_from_checkpoint(file)
    with pytest.raises(BadCheckpoint, match="it knows 10 classes, the network 7"):
        load(file, num_classes=7)
    with pytest.raises(BadCheckpoint, match=r"size mismatch for net\.fc\.weight"):
        load(file, num_classes=7, strict=False)
    with pytest.raises(BadCheckpoint, match="unexpected keyword argument 'nonsense'"):
        load(file, nonsense=1)
    with pytest.raises(ValueError, match=r"of classification, not of detection: Classification\.l"):
        Detection.load_from_checkpoint(file)
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        load(file).load_from_checkpoint(file)


def test_it_trains_on_as_anybodys_and_passes_for_no_run(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    cfg = compose(*short, "quantizer=xnor", "trainer.max_epochs=1", "loss=bonn")
    file, _ = trained(cfg)
    task = Classification.load_from_checkpoint(file)
    assert list(task.terms) == ["kernel", "feature"]
    mean = task.net.get_buffer("bn1.running_mean")
    before = mean.clone()
    fit = trainer(max_steps=2, limit_val_batches=0)
    fit.fit(task, data_of(cfg))
    assert task.training
    assert not torch.equal(before, mean)
    own = tmp_path / "own.ckpt"
    fit.save_checkpoint(own)
    with pytest.raises(BadCheckpoint, match="does not say what network it is: give net=, loss=, "):
        Classification.load_from_checkpoint(own)
    given = {"net": task.net, "loss": task.loss, "recipe": task.recipe, "num_classes": 10}
    again = Classification.load_from_checkpoint(own, **given)
    assert not again.training
    assert again.class_names == ()


def test_a_students_teacher_is_needed_for_training_alone(
    compose: Compose, short: list[str]
) -> None:
    one = ("quantizer=xnor", "trainer.max_epochs=1")
    cfg = compose(*short, *one, "loss=kd", "teacher=joint")
    file, score = trained(cfg)
    task = Classification.load_from_checkpoint(file)
    (found,) = trainer().test(task, data_of(cfg), verbose=False)
    assert found["test/acc"] == pytest.approx(score, abs=1e-6)
    with pytest.raises(ValueError, match=r"without its loss terms kd, which ask a teacher"):
        trainer(max_steps=1).fit(task, data_of(cfg))
    plain = Classification.load_from_checkpoint(file, terms={})
    trainer(max_steps=1, limit_val_batches=0).fit(plain, data_of(cfg))


def test_the_last_stage_is_rebuilt_as_it_was_trained(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "quantizer=xnor", "recipe=two_step", "trainer.max_epochs=2")
    file, score = trained(cfg)
    assert file.parent.parent.name.startswith("stage2")
    (found,) = trainer().test(
        Classification.load_from_checkpoint(file), data_of(cfg), verbose=False
    )
    assert found["test/acc"] == pytest.approx(score, abs=1e-6)


def test_a_detector_has_its_classes(compose: Compose) -> None:
    cfg = compose(*DETECTOR)
    file, score = trained(cfg)
    task = Detection.load_from_checkpoint(file)
    assert task.classes == tuple(task.class_names) == ("rectangle", "cross", "triangle")
    (found,) = trainer().test(task, data_of(cfg), verbose=False)
    assert found["test/map"] == pytest.approx(score, abs=1e-6)
    with pytest.raises(ValueError, match=r"of detection, .*: Detection\.load_from_checkpoint"):
        Classification.load_from_checkpoint(file)


def test_a_file_that_says_nothing_of_itself(tmp_path: Path) -> None:
    net = bnnbench.build_backbone("resnet20", quantizer="xnor", num_classes=10)
    plain = tmp_path / "plain.pt"
    torch.save(net.state_dict(), plain)
    with pytest.raises(BadCheckpoint, match="no checkpoint of Lightning and does not say what ne"):
        Classification.load_from_checkpoint(plain)
    with pytest.raises(BadCheckpoint, match="there is no checkpoint at"):
        Classification.load_from_checkpoint(tmp_path / "nowhere.ckpt")
    with plain.open("rb") as file, pytest.raises(TypeError, match="takes the path of a file"):
        Classification.load_from_checkpoint(file)


def test_code_of_others_needs_their_packages_name(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    file, _ = trained(compose(*short, "quantizer=xnor", "trainer.max_epochs=1"))
    for group, target, said in (
        ("backbone", "elsewhere.net", r"trust=\[elsewhere\]"),
        ("loss", "os.system", "is nothing that this package builds"),
    ):
        content = torch.load(file, weights_only=True)
        content["bnnbench"]["config"][group]["terms"] = {"x": {"_target_": target}}
        torch.save(content, tmp_path / "foreign.ckpt")
        with pytest.raises(Untrusted, match=said):
            Classification.load_from_checkpoint(tmp_path / "foreign.ckpt")
