"""Every option of every group composes, instantiates and, where it trains, trains one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from bnnbench import run
from bnnbench.config import options
from bnnbench.sweep.fingerprint import run_name
from bnnbench.sweep.store import read_result

Compose = Callable[..., DictConfig]
ONE_STEP = [
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=1",
    "+trainer.limit_test_batches=1",
]
ONE_STEP += ["+trainer.limit_val_batches=1", "logger=none", "trainer.accelerator=cpu"]
GROUPS = ("quantizer", "loss", "backbone", "recipe", "callbacks", "table", "scale")


def train_one_step(cfg: DictConfig) -> None:
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    assert np.isfinite(result["history"]["train/loss"]).all()


def choices(*groups: str) -> list[str]:
    return [f"{group}={name}" for group in groups for name in options(group)]


@pytest.mark.parametrize("choice", choices(*GROUPS))
def test_trains_one_step(compose: Compose, choice: str) -> None:
    backbone = [] if choice.startswith("backbone") else ["backbone=resnet20"]
    train_one_step(compose(*ONE_STEP, *backbone, choice))


@pytest.mark.parametrize("quantizer", [name for name in options("quantizer") if name != "fp32"])
@pytest.mark.parametrize("backbone", options("backbone"))
def test_every_pair_composes(compose: Compose, quantizer: str, backbone: str) -> None:
    cfg = compose(f"quantizer={quantizer}", f"backbone={backbone}", "dataset=cifar100")
    net = run.build_task(cfg).net
    assert net.structure.as_dict()["nonlinearity"] == cfg.quantizer.nonlinearity


@pytest.mark.parametrize("name", options("dataset"))
def test_every_dataset_trains_one_step(compose: Compose, tmp_path: Path, name: str) -> None:
    small = ["dataset.image_size=64", "dataset.num_classes=2", "dataset.workers=0"]
    small += ["dataset.batch_size=4"]
    cfg = compose(
        *ONE_STEP, "backbone=resnet20", f"dataset={name}", *(small if name == "imagenet" else [])
    )
    if name == "imagenet":
        write_folders(tmp_path / "data" / name)
    elif name != "digits":  # that one is embedded
        write_arrays(tmp_path / "data" / f"{name}.npz", cfg)
    train_one_step(cfg)


def write_arrays(path: Path, cfg: DictConfig) -> None:
    """Noise in the one-file form of the small sets."""
    size, classes = cfg.dataset.image_size, cfg.dataset.num_classes
    shape = (256, size, size, cfg.dataset.in_channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(256) % classes
    path.parent.mkdir()
    arrays = {f"{part}_images": images for part in ("train", "test")}
    arrays |= {f"{part}_labels": labels for part in ("train", "test")}
    np.savez(path, **arrays)


def write_folders(path: Path) -> None:
    """Noise as image files in class folders, four a class."""
    draw = np.random.default_rng(0)
    for folder in (path / s / str(c) for s in ("train", "val") for c in range(2)):
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 256, (80, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.JPEG")


@pytest.mark.parametrize("name", options("logger"))
def test_every_logger(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    cfg = compose("backbone=resnet20", f"logger={name}")
    trainer = run.build_trainer(cfg, tmp_path, quiet=True)
    if name == "none":
        assert trainer.logger is None
    else:
        assert trainer.logger is not None
        assert trainer.logger.name in (run_name(cfg), "bnnbench")


@pytest.mark.parametrize("choice", choices("debug", "experiment", "trainer", "paths"))
def test_composes(compose: Compose, choice: str) -> None:
    cfg = compose(choice)
    OmegaConf.to_container(cfg.trainer, resolve=True)
    assert cfg.trainer._target_ == "lightning.Trainer"


@pytest.mark.parametrize("method", ["adabin_cifar10_resnet18", "adabin_cifar10_resnet20"])
def test_native_recipe_is_the_authors(compose: Compose, method: str) -> None:
    quantizer, dataset, backbone = method.split("_")
    arguments = (f"quantizer={quantizer}", f"dataset={dataset}", f"backbone={backbone}")
    recipe = compose(*arguments, "recipe=native").recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("sgd", 0.1, 1e-4)
    assert compose(*arguments, "recipe=native").trainer.max_epochs == 400
    assert compose("quantizer=xnor", "recipe=native").recipe.optimizer == compose().recipe.optimizer
