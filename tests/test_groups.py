"""Every option of every group composes, instantiates and, where it trains, trains one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from bnnbench.checks.values import check_config
from bnnbench.config import options
from bnnbench.data.shapes import CLASSES, Shapes
from bnnbench.layers import binary_layers
from bnnbench.optim.roles import parameters_by_role
from bnnbench.records.store import read_result
from bnnbench.runs import build, run
from bnnbench.runs.loggers import build_loggers
from bnnbench.runs.preflight import preflight
from bnnbench.runs.run_log import About

Compose = Callable[..., DictConfig]
ONE_STEP = [
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=1",
    "+trainer.limit_test_batches=1",
]
ONE_STEP += ["+trainer.limit_val_batches=1", "logger=none", "trainer.accelerator=cpu"]
# What an option needs beside it: the losses and recipes that are one method's.
DETECTION = ["dataset=shapes", "dataset.image_size=64", "dataset.batch_size=4"]
DETECTION += ["dataset.generate.trainval=8", "dataset.generate.test=4"]
SSD = ["backbone=ssd300_resnet18", *DETECTION]
TAUGHT = ("kd", "distributional", "attention", "hints")
NEEDS = {
    "loss=multibox_bidet": SSD,
    "recipe=ssd300_fp32": SSD,
    "recipe=ssd300_bnn": SSD,
    **{f"backbone={name}": DETECTION for name in options("backbone") if name[:3] == "ssd"},
    "backbone=timm": ["backbone.name=resnet10t"],
    "loss=pcnn": ["quantizer=pcnn"],
    "loss=mcn": ["quantizer=mcn"],
    "loss=bbb": ["quantizer=bbb"],
    **{
        f"loss={name}": ["teacher=joint"] for name in ("kd", "distributional", "attention", "hints")
    },
    "quantizer=wage": ["recipe=native"],
    "recipe=two_step": ["trainer.max_epochs=2"],
    "recipe=reactnet": ["recipe.stages=[]"],  # its teacher's weights are elsewhere
    "quantizer=bbb": ["loss=bbb"],
    "quantizer=bayesbinn": ["recipe=bayesbinn"],
    "recipe=bayesbinn": ["quantizer=bayesbinn"],
    "recipe=finetune": ["quantizer=bonn", "loss=bonn", "recipe.finetune_epochs=1"],
}
SHAPE = {"image_size": 12, "num_classes": 3, "in_channels": 3}  # of a set of arrays
LARGE = (
    "resnet34",
    "wrn40",
    "vgg16",
    "ssd300_resnet34",
    "ssd300_vgg16",
)  # each is like a smaller one
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
    train_one_step(compose(*ONE_STEP, *backbone, choice, *NEEDS.get(choice, [])))


@pytest.mark.parametrize("quantizer", ["xnor", "birealnet", "adabin", "bonn", "mcn"])
@pytest.mark.parametrize("loss", ["bonn", "kurtosis"])
def test_losses_of_any_quantizer_train_one_step(
    compose: Compose, quantizer: str, loss: str
) -> None:
    train_one_step(
        compose(*ONE_STEP, "backbone=resnet20", f"quantizer={quantizer}", f"loss={loss}")
    )


@pytest.mark.parametrize("quantizer", [name for name in options("quantizer") if name != "fp32"])
@pytest.mark.parametrize(
    "backbone", [name for name in options("backbone") if name not in (*LARGE, "timm")]
)
def test_every_pair_composes(compose: Compose, quantizer: str, backbone: str) -> None:
    needs = NEEDS.get(f"quantizer={quantizer}", [])
    if quantizer in ("abbnn", "wage") and not backbone.startswith(("resnet", "vgg7")):
        needs = [*needs, "quantizer.norm=batch"]  # the others do not exist without norms
    data = DETECTION if backbone.startswith("ssd") else ["dataset=cifar100"]
    cfg = compose(f"quantizer={quantizer}", f"backbone={backbone}", *data, *needs)
    net = build.build_task(cfg).net
    assert net.structure.as_dict()["nonlinearity"] == cfg.quantizer.nonlinearity


@pytest.mark.parametrize(
    "choices", [["backbone=resnet20", "dataset=shapes"], ["backbone=ssd300_resnet18"]]
)
def test_a_detector_and_a_classification_set_are_refused(
    compose: Compose, choices: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"ssd300_\* go with shapes, voc0712 and voc_folder"):
        build.build_task(compose(*choices))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("loss=bonn loss.theta=1e-3", "BayesianFeature is a loss term of classification"),
        ("quantizer=mcn loss=mcn", "Compactness is a loss term of classification"),
        ("loss.label_smoothing=0.1", "label_smoothing=0.1 is for classification"),
    ],
)
def test_a_loss_of_another_task_is_refused(compose: Compose, loss: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build.build_task(compose(*SSD, *loss.split()))


def test_bidets_loss_is_for_detection(compose: Compose) -> None:
    with pytest.raises(ValueError, match="InformationBottleneck is a loss term of detection"):
        build.build_task(compose("backbone=resnet20", "loss=multibox_bidet"))


def test_bonns_losses_give_a_detector_the_kernel_loss(compose: Compose) -> None:
    cfg = compose(*ONE_STEP, *SSD, "loss=bonn", "loss.nu=0.2")
    assert list(build.build_task(cfg).terms) == ["kernel"]
    train_one_step(cfg)
    result = read_result(Path(cfg.paths.output_dir))
    assert result is not None
    assert result["history"]["train/kernel"][0] != 0


def test_ssd_recipes_count_in_iterations(compose: Compose) -> None:
    """120 000 iterations with drops at 80 000 and 100 000; 300 000 with three drops."""
    for name, total, drops in (
        ("ssd300_fp32", 120000, {80000: 0.1, 100000: 0.01}),
        ("ssd300_bnn", 300000, {30000: 0.1, 80000: 0.01, 200000: 0.001}),
    ):
        cfg = compose(*SSD, f"recipe={name}")
        recipe = build.build_task(cfg).recipe
        trainer = build.build_trainer(cfg, Path("."), quiet=True)
        assert (trainer.max_steps, trainer.max_epochs, recipe.lr) == (total, -1, 1e-3)
        assert trainer.gradient_clip_val == {"ssd300_fp32": None, "ssd300_bnn": 5.0}[name]
        for step, factor in drops.items():
            assert recipe.factor(step, total) == pytest.approx(factor)
            assert recipe.factor(step - 1, total) == pytest.approx(10 * factor)
        assert recipe.factor(250, total) == pytest.approx(0.5)


@pytest.mark.parametrize("choice", ["quantizer=bayesbinn", "recipe=bayesbinn"])
def test_a_method_that_is_an_optimizer_needs_its_recipe(compose: Compose, choice: str) -> None:
    with pytest.raises(ValueError, match="need each other"):
        build.build_task(compose("backbone=resnet20", choice))


BAYESIAN = ["quantizer=bayesbinn", "recipe=bayesbinn"]


@pytest.mark.parametrize(
    "loss",
    [
        "loss=bonn",
        "loss=kurtosis",
        "loss=biper",
        "+loss.terms.mine={_target_: bnnbench.losses.kurtosis.Kurtosis, weight: 1, target: 1}",
    ],
)
def test_natural_parameters_have_no_loss_of_values(compose: Compose, loss: str) -> None:
    cfg = compose("backbone=resnet20", *BAYESIAN, "trainer.max_epochs=0", loss)
    with pytest.raises(ValueError, match=r"recipe=bayesbinn are natural parameters"):
        build.build_task(cfg)
    with pytest.raises(ValueError, match=r"choose loss=task"):
        preflight([cfg])


@pytest.mark.parametrize("loss", ["loss=task", "loss=sse", "loss=bonn loss.lambda=0"])
def test_other_losses_train_natural_parameters(compose: Compose, loss: str) -> None:
    build.build_task(compose("backbone=resnet20", *BAYESIAN, *loss.split()))


@pytest.mark.parametrize("name", ["voc_folder", "mine"])
def test_a_posterior_needs_the_number_of_images(compose: Compose, name: str) -> None:
    data = ["dataset=voc_folder", f"dataset.name={name}", "trainer.max_epochs=1"]
    cfg = compose(*SSD[:1], *BAYESIAN, *data, "dataset.batch_size=4")
    with pytest.raises(ValueError, match=rf"give \+recipe\.effective_size\.{name}=<10 times"):
        check_config(cfg)
    check_config(
        compose(*BAYESIAN, *data, "dataset.batch_size=4", f"+recipe.effective_size.{name}=50")
    )


def test_a_data_set_that_no_recipe_knows_needs_a_length(compose: Compose) -> None:
    with pytest.raises(ValueError, match=r"\+recipe\.epochs\.mine=<epochs>; .*batch_size\.mine="):
        check_config(compose("dataset=digits", "dataset.name=mine"))


@pytest.mark.parametrize("name", options("dataset"))
def test_every_dataset_trains_one_step(compose: Compose, tmp_path: Path, name: str) -> None:
    small = ["dataset.image_size=64", "dataset.workers=0", "dataset.batch_size=4"]
    voc = [*small, "backbone=ssd300_resnet18"]
    options = {
        "imagenet": [*small, "dataset.num_classes=2"],
        "image_arrays": ["dataset.file=set.npz"],
        "image_folder": [*small, "dataset.folder=image_folder"],
        "shapes": SSD,
        "voc0712": voc,
        "voc_folder": voc,  # no class and no list is typed
    }
    data = tmp_path / "data"
    if name == "image_arrays":
        write_arrays(data / "set.npz", OmegaConf.create({"dataset": SHAPE}))
    cfg = compose(*ONE_STEP, "backbone=resnet20", f"dataset={name}", *options.get(name, []))
    if name in ("imagenet", "image_folder"):
        write_folders(data / name)
    elif name == "voc_folder":
        Shapes(8, 4, 64).write(data / name)
    elif name == "voc0712":
        write_voc(data / "VOCdevkit")
    elif name not in ("digits", "image_arrays", "shapes"):  # these are embedded
        write_arrays(data / f"{name}.npz", cfg)
    train_one_step(cfg)


def write_voc(folder: Path) -> None:
    """Shapes under the names of VOC's years, splits and classes."""
    for year, split in (("VOC2007", "test"), ("VOC2012", "other")):
        Shapes(8, 4, 64).write(folder / year)
        lists = folder / year / "ImageSets" / "Main"
        (lists / "test.txt").rename(lists / f"{split}.txt")
        for file in (folder / year / "Annotations").glob("*.xml"):
            text = file.read_text()
            for name, known in zip(CLASSES, ("bicycle", "bird", "boat"), strict=True):
                text = text.replace(name, known)
            file.write_text(text)


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
    if name in ("tensorboard", "mlflow"):
        pytest.importorskip(name, reason=f"bnnbench[{name}] is not installed")
    cfg = compose("backbone=resnet20", f"logger={name}")
    built = build_loggers(cfg, About("a_run"))
    assert list(built) == ([] if name == "none" else [name])
    trainer = build.build_trainer(cfg, tmp_path, quiet=True, loggers=built.values())
    if name == "none":
        assert trainer.logger is None
    else:
        assert trainer.logger is not None
        # csv: in the run's folder, without one of its own
        names = {"csv": "", "wandb": "bnnbench", "tensorboard": "a_run", "mlflow": "bnnbench"}
        assert trainer.logger.name == names[name]


def test_bars_can_be_switched_off(compose: Compose, tmp_path: Path) -> None:
    bar = "+callbacks.bar={_target_: lightning.pytorch.callbacks.RichProgressBar}"
    cfg = compose("backbone=resnet20", bar, "trainer.enable_progress_bar=false", "logger=none")
    assert build.build_trainer(cfg, tmp_path, quiet=False).progress_bar_callback is None


@pytest.mark.parametrize("choice", choices("debug", "experiment", "trainer", "paths"))
def test_composes(compose: Compose, choice: str) -> None:
    if choice == "experiment=own_folder":
        pytest.skip("has to have a folder: tests/test_experiments.py trains it with one")
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


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("backbone", ["wrn22", "wrn40"])
def test_native_recipe_of_bonn_on_cifar(compose: Compose, dataset: str, backbone: str) -> None:
    """arXiv 1908.06314, Sec. 3.1: 200 epochs at 0.01, times 0.2 every 60; w at a tenth."""
    cfg = compose("quantizer=bonn", f"dataset={dataset}", f"backbone={backbone}", "recipe=native")
    task = build.build_task(cfg)
    rates = [task.recipe.lr * task.recipe.factor(epoch, 200) for epoch in (0, 59, 60, 120, 180)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.0004, 0.00008])
    assert (cfg.trainer.max_epochs, cfg.dataset.batch_size) == (200, 128)
    _, scale = task.recipe.parameter_groups(parameters_by_role(task))
    assert (scale["lr"], scale["weight_decay"]) == (pytest.approx(0.001), 5e-4)
    latent = next(layer for _, layer in binary_layers(task.net)).weight
    assert float(latent.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_native_recipe_of_bonn_on_imagenet(compose: Compose) -> None:
    cfg = compose("quantizer=bonn", "dataset=imagenet", "backbone=resnet18", "recipe=native")
    task = build.build_task(cfg)
    rates = [task.recipe.lr * task.recipe.factor(epoch, 70) for epoch in (0, 29, 30, 60, 69)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])
    assert (cfg.trainer.max_epochs, cfg.recipe.weight_decay) == (70, 1e-4)
