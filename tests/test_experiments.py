"""Every worked example says what it asks, composes as it is typed there, and trains a step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from bnnbench.commands.help import titles
from bnnbench.config import conf_dir, options
from bnnbench.data.shapes import Shapes
from bnnbench.records.store import read_result
from bnnbench.runs import build, run

Compose = Callable[..., DictConfig]
STEP = ["trainer.max_epochs=1", "logger=none", "trainer.accelerator=cpu"]
STEP += [f"+trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
SMALL = ["dataset.batch_size=4", "dataset.workers=0"]


def head(name: str) -> list[str]:
    """The opening comment of an experiment, without its first line for Hydra."""
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    return [line.lstrip("# ") for line in lines[1:] if line.startswith("#")]


def typed(name: str) -> list[str]:
    """The words of the command in an experiment's head, the first of several values each."""
    (command,) = (line for line in head(name) if line.startswith("bnnbench train"))
    words = shlex.split(command.replace("<", "'<").replace(">", ">'"))[2:]
    return [re.sub(r"=([^,<]+),.*", r"=\1", word) for word in words if word != "-m"]


def cifar10(folder: Path) -> list[str]:
    """Noise in the one-file form of the set."""
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    arrays = {f"{part}_images": images for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(64) % 10 for part in ("train", "test")}
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **arrays)
    return []


def class_folders(folder: Path) -> list[str]:
    """Noise as images of two classes, of which one is rare."""
    draw = np.random.default_rng(0)
    for split, counts in {"train": (8, 3), "val": (3, 2)}.items():
        for label, count in enumerate(counts):
            place = folder / "mine" / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (70, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return ["dataset.folder=mine", *SMALL]


def teacher(folder: Path) -> list[str]:
    """Untrained weights of timm's ResNet-18 for ten classes."""
    import timm

    cifar10(folder)
    torch.save(timm.create_model("resnet18", num_classes=10).state_dict(), folder / "teacher.pth")
    return [f"teacher.checkpoint={folder / 'teacher.pth'}"]


def voc(folder: Path) -> list[str]:
    """Drawn shapes in the layout of Pascal VOC."""
    Shapes(8, 4, 64).write(folder / "mine")
    return ["dataset.folder=mine", "dataset.image_size=64", *SMALL]


DATA: dict[str, Callable[[Path], list[str]]] = {
    "adabin_and_twin": lambda folder: [],
    "bonn_losses": lambda folder: [],
    "cifar10_short": cifar10,
    "own_folder": class_folders,
    "ssd_on_voc_folder": voc,
    "timm_teacher": teacher,
}


def test_there_are_five_and_more() -> None:
    assert set(DATA) == set(options("experiment"))
    assert len(DATA) >= 5


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_says_what_it_asks(name: str) -> None:
    assert dict(titles("experiment"))[name].endswith("?")
    assert f"experiment={name}" in typed(name)


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_trains_a_step_as_it_is_typed(
    compose: Compose, tmp_path: Path, name: str
) -> None:
    data = DATA[name](tmp_path / "data")
    chosen = [word for word in typed(name) if "<" not in word]
    cfg = compose(*chosen, *data, *STEP)
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    assert np.isfinite(result["history"]["train/loss"]).all()


def test_adabins_twin_has_its_structure(compose: Compose) -> None:
    own, twin = (
        build.build_task(
            compose("experiment=adabin_and_twin", f"quantizer={name}")
        ).net.structure.as_dict()
        for name in ("adabin", "fp32")
    )
    assert own == twin


def test_bonns_losses_are_those_that_are_switched_on(compose: Compose) -> None:
    for kernel, feature in ((0, 0), (1e-4, 0), (0, 1e-3), (1e-4, 1e-3)):
        weights = f"loss.lambda={kernel}", f"loss.theta={feature}"
        task = build.build_task(compose("experiment=bonn_losses", *weights))
        assert len(task.regularizers) == (kernel > 0) + (feature > 0)
