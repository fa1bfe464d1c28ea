"""Native recipes and networks against what their sources state, written down from these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn, optim

from bnnbench.backbones.base import Backbone
from bnnbench.config import conf_dir, options
from bnnbench.layers import binary_layers
from bnnbench.optim.roles import parameters_by_role
from bnnbench.quantizers.biper import BiPerWeight
from bnnbench.records.fingerprint import run_name
from bnnbench.records.store import read_result
from bnnbench.runs import build, run
from bnnbench.runs.stages import stages
from bnnbench.tasks.base import Task
from bnnbench.tasks.teacher import FrozenTeacher

Compose = Callable[..., DictConfig]


class Published(NamedTuple):
    """A training and a network: ``warmup`` is the epoch at which the rate is ``lr``."""

    lr: float
    decay: float
    epochs: int
    batch: int
    structure: tuple[str | None, str | None, str, bool]  # shortcut, downsample, act, head norm
    warmup: int = 0
    schedule: str = "cosine"
    drops: tuple[int, ...] = ()  # epochs of schedule step
    gamma: float = 0.1
    spared: bool = False  # no decay of latent weights and of learned scales
    stem: str = "same"  # what stands behind the stem


def vgg(act: str) -> tuple[None, None, str, bool]:
    return None, None, act, False


ADABIN = Published(0.1, 1e-4, 400, 128, ("conv", "conv", "maxout", True))
RECU = Published(0.1, 5e-4, 600, 256, ("conv", "avgpool_pad", "hardtanh", True), warmup=4)
OVSW = RECU._replace(warmup=5)
IENET = Published(0.1, 1e-4, 400, 128, ("conv", "avgpool_pad", "hardtanh", True))
RBNN = Published(0.1, 1e-4, 1000, 256, ("block", "pad", "hardtanh", True), warmup=4)
RESTE = RBNN._replace(structure=("block", "pad", "identity", True))
SIMAN = Published(0.1, 5e-4, 400, 256, ("conv", "pad", "prelu", True), 4, spared=True)
BONN = Published(
    0.01, 5e-4, 200, 128, ("conv", "conv", "prelu", False), 0, "step", (60, 120, 180), 0.2
)
REACTNET = Published(
    2.5e-3, 0.0, 128, 512, ("conv", "avgpool_conv", "rprelu", False), stem="identity"
)
BINARY_SHORTCUTS = ("block", "binary_conv", "hardtanh", True)
SLB = Published(0.1, 1e-4, 500, 100, ("conv", "pad", "prelu", False), schedule="onecycle")
TABLE = {
    "adabin_cifar10_resnet18": ADABIN,
    "adabin_cifar10_resnet20": ADABIN._replace(structure=("conv", "pad", "maxout", True)),
    "irnet_cifar10_resnet20": IENET._replace(structure=("conv", "pad", "hardtanh", True)),
    "irnet_cifar10_vgg_small": IENET._replace(lr=0.007, epochs=300, structure=vgg("hardtanh")),
    "reste_cifar10_resnet20": RESTE,
    "reste_cifar10_resnet18": RESTE._replace(
        epochs=2000, batch=96, structure=("block", "conv", "identity", True)
    ),
    "reste_cifar10_vgg_small": RESTE._replace(structure=vgg("identity")),
    "recu_cifar10_resnet20": RECU,
    "recu_cifar10_resnet18": RECU._replace(
        structure=("block", "avgpool_pad", "hardtanh", True), stem="identity"
    ),
    "recu_cifar10_vgg_small": RECU._replace(structure=vgg("hardtanh")),
    "siman_cifar10_resnet20": SIMAN._replace(stem="relu"),
    "siman_cifar10_resnet18": SIMAN._replace(structure=BINARY_SHORTCUTS, stem="identity"),
    "siman_cifar10_vgg_small": SIMAN._replace(structure=vgg("prelu")),
    "biper_cifar10_resnet18": Published(
        0.021, 1.6e-3, 600, 256, ("block", "avgpool_pad", "hardtanh", True), 4, stem="identity"
    ),
    "ienet_cifar10_resnet20": IENET,
    "ienet_cifar10_resnet18": IENET._replace(
        structure=("block", "conv", "hardtanh", True), stem="identity"
    ),
    "ienet_cifar10_vgg_small": IENET._replace(structure=vgg("hardtanh")),
    "ovsw_cifar10_resnet20": OVSW,
    "ovsw_cifar10_resnet18": OVSW._replace(structure=BINARY_SHORTCUTS, stem="identity"),
    "ovsw_cifar10_vgg_small": OVSW._replace(structure=vgg("hardtanh")),
    "rbnn_cifar10_resnet20": RBNN,
    "rbnn_cifar10_resnet18": RBNN._replace(structure=BINARY_SHORTCUTS, stem="identity"),
    "rbnn_cifar10_vgg_small": RBNN._replace(structure=vgg("hardtanh")),
    "slb_cifar10_resnet20": SLB,
    "slb_cifar10_vgg_small": SLB._replace(lr=0.02, decay=5e-4, structure=vgg("prelu")),
    "bonn_cifar10_wrn22": BONN,
    "bonn_cifar10_wrn40": BONN,
    "bonn_cifar100_wrn22": BONN,
    "bonn_cifar100_wrn40": BONN,
    "bonn_imagenet_resnet18": BONN._replace(
        lr=0.1,
        decay=1e-4,
        epochs=70,
        batch=256,
        drops=(30, 60),
        gamma=0.1,
        structure=("conv", "avgpool_conv", "prelu", False),
    ),
}


TWO_STEPS_OF = {"reactnet": (2.5e-3, 128), "rbonn": (1e-3, 256), "rebnn": (1e-3, 256)}


def choices(name: str) -> list[str]:
    quantizer, dataset, backbone = name.split("_", 2)
    chosen = [f"quantizer={quantizer}", f"dataset={dataset}", f"backbone={backbone}"]
    return [*chosen, "recipe=native"]


def without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as they are built, without the seconds that drawing their weights takes."""
    for name in ("kaiming_normal_", "normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def rates(optimizer: optim.Optimizer, scheduler: Any, epochs: int) -> list[float]:
    """The first group's learning rate in every epoch of one step."""
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def expected_rate(published: Published, epoch: int) -> float:
    if published.schedule == "step":
        return published.lr * published.gamma ** sum(epoch >= drop for drop in published.drops)
    done = (epoch - published.warmup) / (published.epochs - published.warmup)
    return published.lr * (1 + math.cos(math.pi * done)) / 2


def spared_parameters(net: nn.Module) -> Iterator[int]:
    for _, layer in binary_layers(net):
        yield id(layer.weight)
        yield from map(id, layer.output.parameters())


def check_training(task: Task, cfg: DictConfig, published: Published) -> None:
    built = task.recipe.build(parameters_by_role(task), published.epochs)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert type(optimizer) is optim.SGD
    assert (cfg.trainer.max_epochs, cfg.dataset.batch_size) == (published.epochs, published.batch)
    decays = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    spared = set(spared_parameters(task.net)) if published.spared else set()
    for number, group in decays.items():
        assert group["weight_decay"] == (0.0 if number in spared else published.decay)
        assert group["momentum"] == 0.9 or published.schedule == "onecycle"  # which cycles it
    found = rates(optimizer, scheduler, published.epochs)
    if published.schedule == "onecycle":
        assert max(found) == pytest.approx(published.lr, rel=1e-3)
        return
    middle = (published.warmup + published.epochs) // 2
    for epoch in (published.warmup, middle, published.epochs - 1):
        assert found[epoch] == pytest.approx(expected_rate(published, epoch)), epoch
    assert found[: published.warmup] == sorted(found[: published.warmup])


def check_structure(net: nn.Module, published: Published) -> None:
    assert isinstance(net, Backbone)
    built = net.structure
    found = built.shortcut, built.downsample, built.nonlinearity, built.head_norm
    assert (found, built.stem_nonlinearity) == (published.structure, published.stem)


def files(group: str) -> list[Path]:
    return sorted((conf_dir() / "recipe" / group).rglob("*.yaml"))


def has_recipe(quantizer: str, dataset: str, backbone: str) -> bool:
    """Whether a native file is for this combination."""
    names = (quantizer, f"{quantizer}_{dataset}", f"{quantizer}_{dataset}_{backbone}")
    levels = zip(("method", "dataset", "network"), names, strict=True)
    return any(name in options(f"recipe/native/{level}") for level, name in levels)


def test_every_file_has_its_row() -> None:
    rows = {*TABLE, *(f"{name}_imagenet_resnet18" for name in TWO_STEPS_OF)}  # in their own tests
    assert {*options("recipe/native/network"), *options("recipe/structure/native")} < rows
    assert set(options("recipe/native/dataset")) < {"_".join(row.split("_")[:2]) for row in rows}
    assert all(has_recipe(*row.split("_", 2)) for row in rows)
    for file in [*files("native"), *files("structure")]:
        assert file.read_text().startswith("# "), file  # its source
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert len(lines) > 2 or "structure" in file.parts or file.stem == "bonn_cifar100", file


@pytest.mark.parametrize("quantizer", options("quantizer"))
@pytest.mark.parametrize("data", ["dataset=cifar10 backbone=wrn22", "dataset=imagenet"])
def test_native_without_a_file_is_the_unified_run(
    compose: Compose, quantizer: str, data: str
) -> None:
    arguments = [f"quantizer={quantizer}", *data.split()]
    native, unified = (compose(*arguments, f"recipe={name}") for name in ("native", "unified"))
    known = has_recipe(quantizer, native.dataset.name, native.backbone.name)
    assert native.recipe.name == ("native" if known else "unified")
    assert (run_name(native) == run_name(unified)) == (not known)
    plain = [OmegaConf.to_container(cfg) for cfg in (native, unified)]
    assert (plain[0] == plain[1]) == (not known)


def test_what_holds_for_a_data_set_holds_for_any_network(compose: Compose) -> None:
    """And for no other data set; ReSTE's ResNet-18 has its own length beside that."""
    for backbone, length in (("resnet34", 1000), ("resnet18", 2000)):
        cfg = compose(*choices(f"reste_cifar10_{backbone}"))
        found = (cfg.recipe.name, cfg.recipe.lr, cfg.trainer.max_epochs)
        assert found == ("native", 0.1, length)
    assert compose(*choices("reste_cifar100_resnet18")).recipe.name == "unified"
    assert compose(*choices("slb_cifar10_resnet18")).recipe.name == "unified"  # stated for two


@pytest.mark.parametrize("name", TABLE)
def test_is_the_published(compose: Compose, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    without_values(monkeypatch)
    cfg = stages(compose(*choices(name)))[0].cfg
    assert cfg.recipe.name == "native"
    task = build.build_task(cfg)
    check_training(task, cfg, TABLE[name])
    check_structure(task.net, TABLE[name])


def test_bipers_second_stage(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 epochs at 0.0037 with signs in place of sines; the penalty's weight 0.0468, not 0.037."""
    without_values(monkeypatch)
    first, second = stages(compose(*choices("biper_cifar10_resnet18")))
    published = TABLE["biper_cifar10_resnet18"]._replace(lr=0.0037, decay=1.6e-4, epochs=300)
    assert (first.continues, second.continues) == (False, True)
    for stage, number, tau in ((first, 1, 0.037), (second, 2, 0.0468)):
        task = build.build_task(stage.cfg)
        assert [term.weight for term in task.regularizers] == [tau]
        sides = [layer.weight_quantizer for _, layer in binary_layers(task.net)]
        assert all(isinstance(side, BiPerWeight) and side.stage == number for side in sides)
        assert {side.frequency for side in sides} == {20.0}
    check_training(task, second.cfg, published)
    check_structure(task.net, published)


@pytest.mark.parametrize("quantizer", ["reactnet", "adabin", "recu"])
def test_reactnets_two_steps(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, quantizer: str
) -> None:
    """Of any quantizer: 128 epochs at 2.5e-3 each, linear to 0, decay in the first alone."""
    without_values(monkeypatch)
    arguments = [f"quantizer={quantizer}", "dataset=imagenet", "backbone=resnet18"]
    cfg = compose(*arguments, "recipe=reactnet")
    native = compose("quantizer=reactnet", *arguments[1:], "recipe=native")
    assert {**native.recipe, "name": "reactnet"} == cfg.recipe
    first, second = stages(cfg)
    assert (first.continues, second.continues) == (False, True)
    for stage, decay, bits in ((first, 1e-5, 32), (second, 0.0, 1)):
        asked = stage.cfg.teacher
        assert (asked.name, asked.model, asked.pretrained) == ("timm", "resnet34", True)
        task = build.build_task(stage.cfg, teacher=FrozenTeacher(nn.Identity()))
        assert task.task_weight == 0
        _, layer = next(binary_layers(task.net))
        assert (layer.weight_quantizer.bits, layer.activation_quantizer.bits) == (bits, 1)
        roles = parameters_by_role(task)
        built = task.recipe.build(roles, 128)
        assert type(built["optimizer"]) is optim.Adam
        decays = {
            p: g["weight_decay"] for g in built["optimizer"].param_groups for p in g["params"]
        }
        for role, parameters in roles.items():
            expected = 0.0 if role in ("scale", "norm") else decay
            assert {decays[parameter] for parameter in parameters} == {expected}
        found = rates(built["optimizer"], built["lr_scheduler"]["scheduler"], 128)
        assert found == pytest.approx([2.5e-3 * (1 - epoch / 128) for epoch in range(128)])
        assert (stage.cfg.trainer.max_epochs, stage.cfg.dataset.batch_size) == (128, 512)


@pytest.mark.parametrize(
    ("quantizer", "rate", "length"), [(k, *v) for k, v in TWO_STEPS_OF.items()]
)
def test_reactnets_family_is_trained_in_its_two_steps(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, quantizer: str, rate: float, length: int
) -> None:
    """In networks with nothing behind the stem; elsewhere they are unified's."""
    without_values(monkeypatch)
    found = stages(compose(*choices(f"{quantizer}_imagenet_resnet18")))
    for stage, decay in zip(found, (1e-5, 0.0), strict=True):
        cfg = stage.cfg
        settings = cfg.recipe.name, cfg.recipe.lr, cfg.recipe.weight_decay, cfg.trainer.max_epochs
        assert settings == ("native", rate, decay, length)
        assert (cfg.loss.name, cfg.teacher.model) == ("distributional", "resnet34")
        net = build.build_task(cfg, teacher=FrozenTeacher(nn.Identity())).net
        check_structure(net, REACTNET)
    other = compose(*choices(f"{quantizer}_cifar10_resnet18"))
    assert (other.recipe.name, other.backbone.stem_nonlinearity) == ("unified", "same")


def test_rbnns_other_resnet20_is_a_switch(compose: Compose) -> None:
    """resnet20_bireal of its readme.md, which is also the method's own structure."""
    native = choices("rbnn_cifar10_resnet20")
    shortcuts = [
        compose(*arguments).backbone.shortcut
        for arguments in (native, [*native, "backbone.shortcut=conv"], [*native, "recipe=unified"])
    ]
    assert shortcuts == ["block", "conv", "conv"]


def test_biper_has_two_stages_wherever_its_authors_state_nothing(compose: Compose) -> None:
    cfg = compose(*choices("biper_cifar10_resnet20"), "trainer.max_epochs=9")
    found = [(s.cfg.quantizer.stage, s.cfg.trainer.max_epochs, s.continues) for s in stages(cfg)]
    assert found == [(1, 6, False), (2, 3, True)]


def test_quantizers_own_settings(compose: Compose) -> None:
    for backbone, t_min in (("vgg_small", 0.1), ("resnet20", 1e-3)):
        irnet = compose(*choices(f"irnet_cifar10_{backbone}")).quantizer
        assert irnet.weight.t_min == irnet.activation.t_min == t_min
    for backbone, start in (("resnet20", 0.4), ("vgg_small", 0.3)):
        slb = compose(*choices(f"slb_cifar10_{backbone}")).quantizer
        assert slb.weight.sharpness == pytest.approx(1.03 ** ((0.9 - start) * 500), rel=1e-3)
        assert (slb.start, slb.end) == (start, 0.9)


def test_the_command_line_wins(compose: Compose) -> None:
    arguments = choices("siman_cifar10_resnet18")
    cfg = compose(*arguments, "backbone.shortcut=conv", "recipe.lr=0.3", "trainer.max_epochs=2")
    assert (cfg.backbone.shortcut, cfg.recipe.lr, cfg.trainer.max_epochs) == ("conv", 0.3, 2)


def test_other_recipes_and_combinations_keep_their_network(compose: Compose) -> None:
    siman = choices("siman_cifar10_resnet18")
    for changed in ("recipe=unified", "dataset=cifar100"):
        cfg = compose(*siman, changed)
        found = (cfg.recipe.name, cfg.recipe.optimizer, cfg.backbone.shortcut)
        assert found == ("unified", "adam", "conv")


def write_noise(folder: Path) -> None:
    """CIFAR-10's form with 32 images, or CIFAR-100's."""
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    arrays = {f"{part}_images": images for part in ("train", "test")}
    folder.mkdir()
    arrays |= {f"{part}_labels": np.arange(32) % 10 for part in ("train", "test")}
    for name in ("cifar10", "cifar100"):
        np.savez(folder / f"{name}.npz", **arrays)


SHORT = ["trainer.max_epochs=1", "dataset.batch_size=16", "logger=none", "compile=false"]
SHORT += ["trainer.accelerator=cpu", "trainer.precision=32-true"]


def train_two_steps(cfg: DictConfig) -> dict[str, Any]:
    write_noise(Path(cfg.paths.data_dir))
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    assert np.isfinite(result["history"]["train/loss"]).all()
    return result


TWO_STEPS = ["dataset.batch_size=2", "+trainer.limit_train_batches=2"]
TWO_STEPS += ["+trainer.limit_test_batches=1", "callbacks.best=null", "callbacks.last=null"]
CIFAR = [name for name in TABLE if "imagenet" not in name and not name.startswith("biper")]


@pytest.mark.parametrize("name", CIFAR)
def test_trains_two_steps(compose: Compose, name: str) -> None:
    result = train_two_steps(compose(*choices(name), *SHORT, *TWO_STEPS))
    assert result["config"]["recipe"]["lr"] == TABLE[name].lr


def test_biper_trains_both_stages(compose: Compose) -> None:
    """Its stages in a ResNet-20, which is small."""
    recipe = ["+recipe/native/network@recipe=biper_cifar10_resnet18", "recipe.sign_epochs=1"]
    arguments = ["quantizer=biper", "dataset=cifar10", "backbone=resnet20"]
    result = train_two_steps(compose(*arguments, *recipe, *SHORT))
    assert [stage["config"]["quantizer"]["stage"] for stage in result["stages"]] == [1, 2]
    assert result["history"]["train/periodic"][1] < result["history"]["train/periodic"][0] * 2
