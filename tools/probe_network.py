"""The network of a run, built and trained by whatever code is on PYTHONPATH, as digests.

Every part is built by what each side accepts; keys that a config does not have are taken from the
option's own file, which holds them for that code.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnnbench.config import backbone_from_config, conf_dir, quantizer_from_config, target, to_dict
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.tasks.classification import Classification
from digests import digest, random

STEPS = 3
IMAGES, BOXED = 16, 2  # of a batch; convolutions of fewer than 16 images add up in another order


def module(*places: str) -> Any:
    """The first module of the package that this code has: files have moved since old commits."""
    found = (f"bnnbench.{place}" for place in places)
    return import_module(next(name for name in found if _exists(name)))


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # nor is its package there
        return False


Recipe = module("optim.recipe", "tasks.recipe").Recipe


def filled(node: DictConfig, group: str, option: str) -> DictConfig:
    """``node`` with the keys that it lacks and its option's file has, as far as they apply."""
    file = conf_dir() / group / f"{option}.yaml"
    if file.exists():
        _fill(node, OmegaConf.to_container(OmegaConf.load(file), resolve=False))
    return node


def _fill(node: Any, current: Any) -> None:
    same = [str(n.get("_target_", "")).rpartition(".")[2] for n in (node, current)]
    for key in current if same[0] == same[1] else ():
        if key in node and isinstance(current[key], dict) and isinstance(node[key], DictConfig):
            _fill(node[key], current[key])
        elif key not in node and key != "terms" and (same[0] or not isinstance(current[key], dict)):
            node[key] = current[key]


def root_of(config: Mapping[str, Any]) -> DictConfig:
    """A whole config of a run as this code knows it, from a result's."""
    cfg = OmegaConf.create(copy.deepcopy(dict(config)))
    cfg.setdefault("teacher", {"name": "none"})
    cfg.paths = {"stage": "", "stage_dir": ""}
    for group in ("quantizer", "loss", "backbone"):
        filled(cfg[group], group, cfg[group].name)
    cfg.recipe.setdefault("stages", [])
    filled(cfg.recipe, "recipe", "unified")
    return cfg


def stages_of(cfg: DictConfig) -> list[tuple[str, DictConfig, bool]]:
    """Name, config and whether it goes on from the one before, of every stage."""
    if not cfg.recipe.stages:
        return [("network", cfg, False)]
    stages = module("runs.stages", "stages").stages
    return [(f"stage {stage.name}", stage.cfg, stage.continues) for stage in stages(cfg)]


def accepted(function: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``given`` the function has a parameter for."""
    return {key: given[key] for key in inspect.signature(function).parameters if key in given}


def network_of(cfg: DictConfig) -> nn.Module:
    """The network as it starts."""
    net = backbone_from_config(cfg.backbone, quantizer_from_config(cfg.quantizer))
    if (std := cfg.recipe.get("init_std")) is not None:
        for _, layer in binary_layers(net):
            nn.init.normal_(layer.weight, std=std)
    return net


def task_of(cfg: DictConfig, net: nn.Module, teacher: Any) -> L.LightningModule:
    """The network with its loss, all terms and its recipe."""
    detects = "interpolation" in cfg.dataset
    plain = to_dict(cfg.recipe)
    recipe = Recipe(**{f.name: plain[f.name] for f in fields(Recipe) if f.name in plain})
    loss = task_loss("detection" if detects else "classification", **accepted(task_loss, cfg.loss))
    terms = {name: target(node)() for name, node in to_dict(cfg.loss).get("terms", {}).items()}
    rest = {"net": net, "loss": loss, "recipe": recipe, "terms": terms, "teacher": teacher}
    rest |= {"num_classes": cfg.dataset.num_classes, "classes": cfg.dataset.get("classes")}
    rest |= {"task_weight": cfg.loss.get("task_weight", 1.0)}
    kind: Any = Classification
    if detects:
        from bnnbench.tasks.detection import Detection as kind
    return kind(**accepted(kind.__init__, rest))


def teacher_of(cfg: DictConfig, earlier: Mapping[str, nn.Module]) -> Any:
    """A teacher of random weights, or an earlier stage; None without one."""
    if cfg.teacher.name == "none":
        return None
    teachers = module("tasks.teacher", "teacher")
    torch.manual_seed(1)
    if cfg.teacher.name == "stage":
        return teachers.FrozenTeacher(copy.deepcopy(earlier[f"stage {cfg.teacher.stage}"]))
    twin = copy.deepcopy(cfg)
    twin.quantizer = OmegaConf.load(conf_dir() / "quantizer" / "fp32.yaml")
    twin.backbone.nonlinearity = cfg.teacher.get("nonlinearity", "relu")
    net = network_of(twin)
    kind = "JointTeacher" if cfg.teacher.name == "joint" else "FrozenTeacher"
    return getattr(teachers, kind)(net)


def batches_of(cfg: DictConfig) -> DataLoader:
    """Random images with labels, or with a box each: as many batches as steps."""
    size, classes = cfg.dataset.image_size, cfg.dataset.num_classes
    detects = "interpolation" in cfg.dataset
    images = BOXED if detects else min(IMAGES, cfg.dataset.batch_size)
    x = random(STEPS * images, cfg.dataset.in_channels, size, size, seed=5)
    labels = torch.arange(len(x)) % classes
    if not detects:
        parts = laid_out(x, cfg).split(images), labels.split(images)
        batches: Any = list(zip(*parts, strict=True))
        return DataLoader(batches, batch_size=None)
    box = torch.tensor([[0.2, 0.3, 0.6, 0.8]]) * size
    boxed: Any = [
        (image, {"boxes": box, "labels": 1 + label[None]})
        for image, label in zip(x, labels, strict=True)
    ]
    return DataLoader(boxed, batch_size=images, collate_fn=lambda batch: _stacked(batch, cfg))


def _stacked(batch: list[tuple[Tensor, dict[str, Tensor]]], cfg: DictConfig) -> tuple[Any, ...]:
    images = torch.stack([image for image, _ in batch])
    return laid_out(images, cfg), [target for _, target in batch]


def laid_out(x: Any, cfg: DictConfig) -> Any:
    """A tensor or a module in the run's memory format; a result without the key has the default."""
    last = cfg.get("channels_last", True)
    return x.to(memory_format=torch.channels_last if last else torch.contiguous_format)


class Watch(L.Callback):
    """Keeps losses and gradients of every step, and ends the run after the last of them."""

    def __init__(self) -> None:
        self.seen: list[Tensor | None] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        grads = [p.grad for p in pl_module.parameters()]
        self.seen += [None if grad is None else grad.clone() for grad in grads]

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, i: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.seen.append(None if loss is None else loss.clone())
        trainer.should_stop = trainer.global_step >= STEPS


def trained(cfg: DictConfig, task: L.LightningModule, precision: str) -> str:
    """Three steps of a run that is as long as the config's; digest of all that they leave.

    The third is the first of the second epoch, so that what happens between epochs is seen.
    """
    watch = Watch()
    kind: Any = precision
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(
        max_epochs=cfg.trainer.max_epochs,
        precision=kind,
        gradient_clip_val=cfg.trainer.get("gradient_clip_val"),
        accelerator="cpu",
        devices=1,
        limit_train_batches=STEPS - 1 if cfg.trainer.max_epochs > 1 else STEPS,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[watch],
        **dict.fromkeys(quiet, False),
    )
    trainer.fit(task, batches_of(cfg))
    if trainer.global_step < STEPS:
        raise RuntimeError(f"{trainer.global_step} steps were taken, not {STEPS}")
    return digest([*watch.seen, *task.state_dict().values()])


def networks(config: Mapping[str, Any], precision: str) -> dict[str, str]:
    """Digests of three training steps of the run, of each stage where it has any."""
    found: dict[str, str] = {}
    earlier: dict[str, nn.Module] = {}
    for name, cfg, continues in stages_of(root_of(config)):
        teacher = teacher_of(cfg, earlier)
        torch.manual_seed(0)
        net = network_of(cfg)
        if continues:
            before, own = list(earlier.values())[-1].state_dict(), net.state_dict()
            same = {k: v for k, v in before.items() if k in own and own[k].shape == v.shape}
            net.load_state_dict(same, strict=False)
        found[name] = trained(cfg, laid_out(task_of(cfg, net, teacher), cfg), precision)
        earlier[name] = net
    return found
