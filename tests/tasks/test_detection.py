"""Detection runs end to end on the generated set: resume, steps, pictures, known answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.utils.data import DataLoader

from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.config import build_backbone
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.records.store import read_result
from bnnbench.runs import run
from bnnbench.runs.build import build_datamodule, build_task
from bnnbench.tasks.detection import Detection

Compose = Callable[..., DictConfig]
TINY = ["backbone=ssd300_resnet18", "dataset=shapes", "dataset.image_size=64", "logger=none"]
TINY += ["dataset.generate.trainval=12", "dataset.generate.test=4", "dataset.batch_size=4"]
TINY += ["trainer.accelerator=cpu", "callbacks.statistics=null", "callbacks.best=null"]


def execute(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


class Cut(Exception):
    """Stands for a power failure."""


def test_a_cut_run_continues_bit_for_bit(
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    untimed: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """With random crops, a term that starts late and a schedule that follows the run."""
    arguments = [*TINY, "quantizer=irnet", "loss=multibox_bidet", "loss.start=0.5"]
    arguments += ["trainer.max_epochs=3", "dataset.augmentation=ssd", "loss.gamma=0.2"]
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    expected = execute(whole)
    term = expected["history"]["train/bottleneck"]
    assert term[0] == 0 < term[2]
    original = QuantizerProgress.on_train_epoch_start

    def cut(self: Any, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            raise Cut
        original(self, trainer, module)

    cfg = compose(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(QuantizerProgress, "on_train_epoch_start", cut)
        with pytest.raises(Cut):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert untimed(execute(cfg)["history"]) == untimed(expected["history"])


def test_a_run_of_steps_ends_with_them_and_is_evaluated(compose: Compose) -> None:
    """Seven steps of three a pass: the third pass is cut short, and evaluated all the same."""
    cfg = compose(
        *TINY, "quantizer=xnor", "recipe=ssd300_bnn", "recipe.steps=7", "recipe.warmup=2",
        "recipe.milestones=[4,6]",
    )  # fmt: skip
    result = execute(cfg)
    history = result["history"]
    assert history["epoch"] == [0, 1, 2]
    assert history["lr"] == pytest.approx([1e-3, 1e-5, 1e-5])
    assert history["test/loss"][2] == pytest.approx(result["metrics"]["last"]["test/loss"])
    assert history["test/loss"][1] != pytest.approx(history["test/loss"][2])


def test_a_result_holds_what_the_table_needs(compose: Compose) -> None:
    result = execute(compose(*TINY, "quantizer=adabin", "trainer.max_epochs=1"))
    last = result["metrics"]["last"]
    assert {"test/map", "test/coco_map", "test/loss", "test/ap/triangle"} <= set(last)
    assert last["test/map"] == pytest.approx(result["history"]["test/map"][-1])
    assert {"train/classification", "train/localization"} <= set(result["history"])
    assert result["structure"]["extras"] == "binary"
    assert (result["train_images"], result["test_images"]) == (12, 4)
    assert (result["headline"], result["classes"], result["ended"]) == ("test/map", None, None)


def test_pictures_are_drawn(compose: Compose) -> None:
    cfg = compose(*TINY, "quantizer=fp32", "trainer.max_epochs=1")
    execute(cfg)
    pictures = Path(cfg.paths.output_dir) / "pictures"
    for name in ("boxes", "precision_recall"):
        pixels = np.asarray(Image.open(pictures / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 250
        assert pixels[50:].std() > 10  # below the legend as well


def truth(*objects: tuple[float, float, float, float, int]) -> dict[str, torch.Tensor]:
    values = torch.tensor(objects, dtype=torch.float32).reshape(-1, 5)
    labels = values[:, 4].long()
    return {"boxes": values[:, :4], "labels": labels, "difficult": torch.zeros_like(labels).bool()}


def images_of(targets: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Grey images with a square of the class's colour for every object."""
    images = torch.zeros(len(targets), 3, 64, 64)
    for image, target in zip(images, targets, strict=True):
        for (x1, y1, x2, y2), label in zip(
            target["boxes"].int().tolist(), target["labels"].tolist(), strict=True
        ):
            image[label - 1, y1:y2, x1:x2] = 3.0
    return images


def detector(steps: int, **trainer: Any) -> tuple[Detection, L.Trainer]:
    net = build_backbone("ssd300_resnet18", "fp32", num_classes=2, image_size=64)
    recipe = Recipe("adam", lr=2e-3, schedule="onecycle")
    task = Detection(net, task_loss("detection"), recipe, ("red", "green"))  # type: ignore
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu"}
    return task, L.Trainer(max_steps=steps, **quiet, **trainer)


def loader(targets: list[dict[str, torch.Tensor]]) -> DataLoader[Any]:
    return DataLoader([(images_of(targets), targets)], batch_size=None)  # type: ignore


def test_learns_in_anybodys_trainer() -> None:
    """Four images, nearly by heart, and nothing before."""
    torch.manual_seed(0)
    targets = [
        truth((4, 4, 30, 30, 1)),
        truth((30, 10, 60, 50, 2), (2, 2, 26, 40, 1)),
        truth((10, 30, 44, 62, 2)),
        truth(),
    ]
    task, trainer = detector(steps=40)
    before = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    assert before.test(task, loader(targets), verbose=False)[0]["test/map"] < 0.1
    trainer.fit(task, loader(targets))
    metrics = trainer.test(task, loader(targets), verbose=False)[0]
    assert metrics["test/map"] > 0.6
    mean = (metrics["test/ap/red"] + metrics["test/ap/green"]) / 2
    assert metrics["test/map"] == pytest.approx(mean)


def test_batches_without_objects_are_finite() -> None:
    task, trainer = detector(steps=2)
    trainer.fit(task, loader([truth(), truth()]))
    assert all(bool(p.isfinite().all()) for p in task.parameters())
    assert float(trainer.callback_metrics["train/loss"]) == 0


def test_nothing_to_find_is_undefined_and_no_failure(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All test objects are marked difficult: no metric of VOC or COCO has a value."""
    from bnnbench.data import DetectionDataModule

    setup = DetectionDataModule.setup

    def marked(self: Any, stage: str | None = None) -> None:
        setup(self, stage)
        self.parts["test"][1].difficult.fill_(True)

    monkeypatch.setattr(DetectionDataModule, "setup", marked)
    best = "callbacks.best={_target_: lightning.pytorch.callbacks.ModelCheckpoint, mode: max, "
    best += f"dirpath: {tmp_path}/best, monitor: test/map}}"
    tiny = [argument for argument in TINY if argument != "callbacks.best=null"]
    result = execute(compose(*tiny, best, "quantizer=fp32", "trainer.max_epochs=1"))
    last = result["metrics"]["last"]
    undefined = {name for name, value in last.items() if value is None}
    names = ("map", "coco_map", "ap/rectangle", "ap/cross", "ap/triangle")
    assert undefined == {f"test/{name}" for name in names}
    assert last["test/loss"] > 0
    assert result["history"]["test/map"] == [None]
    assert (result["headline"], result["metrics"]["best"]) == ("test/map", {})


def test_a_loss_that_is_not_finite_stops_the_run(compose: Compose) -> None:
    cfg = compose(*TINY, "quantizer=fp32", "recipe.lr=1e30", "trainer.max_epochs=2")
    with pytest.raises(FloatingPointError, match="the loss became"):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)


def test_a_trainer_predicts_what_the_network_detects(compose: Compose) -> None:
    cfg = compose(*TINY, "quantizer=xnor")
    task, data = build_task(cfg), build_datamodule(cfg)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(**quiet, enable_checkpointing=False, enable_model_summary=False)
    said = trainer.predict(task, data)
    assert said is not None
    task.eval()
    with torch.no_grad():
        expected = [task.net.detect(task.net(images)) for images, _ in data.predict_dataloader()]
    data.teardown()
    assert sum(map(len, said)) == 4
    for found, known in zip(said, expected, strict=True):
        torch.testing.assert_close(found, known)
