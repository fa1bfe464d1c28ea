"""The teacher that a config names, built and with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bnnbench.config import backbone_from_config, load_option, quantizer_from_config, to_dict
from bnnbench.records.checkpoints import check_start, load_weights, warn_of_normalisation
from bnnbench.records.fingerprint import fingerprinted
from bnnbench.records.foreign import taken, trusted_packages
from bnnbench.records.signature import check_belongs, read_checkpoint, signature_of
from bnnbench.records.states import check_finite
from bnnbench.records.store import last_weights, trained
from bnnbench.tasks.teacher import FrozenTeacher, JointTeacher, Teacher


def build_teacher(
    cfg: DictConfig, stages: Mapping[str, DictConfig], untrained: bool = False
) -> Teacher | None:
    """The teacher of ``cfg``, with its weights; None for ``teacher=none``.

    Args:
        cfg: the config of the run or stage.
        stages: the configs of this run's earlier stages by name, for ``teacher=stage``.
        untrained: leave out an earlier stage's weights, to check a run before it starts.

    Raises:
        ValueError: no such stage, a run that is not there, no weights, other classes or channels,
            a run whose result names code of packages that ``cfg.trust`` does not.
        BadCheckpoint: weights of another network.
    """
    if cfg.teacher.name == "none":
        return None
    with torch.random.fork_rng(devices=[]):  # the student starts as it does without a teacher
        torch.manual_seed(cfg.seed + 1)
        net = _network_of(cfg, stages)
    if not (untrained and cfg.teacher.get("stage")):
        _load(net, cfg, stages)
    elif cfg.teacher.name == "joint":
        start = _network(cfg, fingerprinted(stages[cfg.teacher.stage]))
        check_start(net, start.state_dict(), f"teacher.stage={cfg.teacher.stage} is")
    layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
    net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    return JointTeacher(net) if cfg.teacher.name == "joint" else FrozenTeacher(net)


def _load(net: nn.Module, cfg: DictConfig, stages: Mapping[str, DictConfig]) -> None:
    """The weights it starts from, where that is not its own start."""
    teacher = cfg.teacher
    if teacher.name == "timm":
        if teacher.checkpoint is not None:
            _load_timm(net, cfg)
    elif teacher.name == "run":
        record, weights = trained(teacher.folder)
        check_belongs(weights, record["fingerprint"])
        load_weights(net, weights)
    elif teacher.stage is not None:
        folder = stages[teacher.stage].paths.stage_dir
        load_weights(net, last_weights(folder), strict=teacher.name == "stage")


def check_classes(cfg: DictConfig, classes: Sequence[str]) -> None:
    """Refuse a run as teacher whose classes have other names. Raises ValueError."""
    if cfg.teacher.name != "run":
        return
    found = signature_of(read_checkpoint(trained(cfg.teacher.folder)[1]))
    if found is not None and list(found.classes) != list(classes):
        raise ValueError(
            f"teacher.folder={cfg.teacher.folder} knows {', '.join(found.classes[:5])}, the run "
            f"learns {', '.join(classes[:5])}: a teacher has to know the same classes"
        )


def _load_timm(net: Any, cfg: DictConfig) -> None:
    """Weights as timm stores them, or under other names with a map of them."""
    file = Path(str(cfg.teacher.checkpoint))
    source = f"teacher.checkpoint={file}"
    if file.suffix in (".npz", ".npy"):  # of JAX: timm's models know how to read them
        from timm.models import load_checkpoint  # with all of timm: seconds

        load_checkpoint(net.model, str(file))
        check_finite(net.state_dict(), source)
        return
    known = load_weights(net, file, named=cfg.get("checkpoint_map"), averages=True)
    warn_of_normalisation(source, known, cfg.dataset.mean, cfg.dataset.std)


def _network_of(cfg: DictConfig, stages: Mapping[str, DictConfig]) -> nn.Module:
    """The teacher's network, untrained. Raises as ``build_teacher``."""
    teacher = cfg.teacher
    name = teacher.get("stage")
    if name is not None and name not in stages:
        raise ValueError(
            f"teacher.stage={name} is no earlier stage of this run; there are {list(stages)}"
        )
    if teacher.name == "run":
        return _network(cfg, _config_of_run(cfg))
    if teacher.name == "stage":
        return _network(cfg, fingerprinted(stages[teacher.stage]))
    own = fingerprinted(cfg)["backbone"]
    if teacher.name == "joint":
        return _network(cfg, _twin(cfg, own | {"nonlinearity": teacher.nonlinearity}))
    if teacher.checkpoint is None and not teacher.pretrained:
        raise ValueError("teacher=timm needs weights: teacher.checkpoint=<file> or pretrained=true")
    shape = {key: own[key] for key in ("num_classes", "in_channels", "image_size")}
    options = {"name": teacher.model, "pretrained": teacher.pretrained, **shape}
    _check_classes(teacher, shape["num_classes"])
    return _network(cfg, _twin(cfg, to_dict(load_option("backbone", "timm", options))))


def _twin(cfg: DictConfig, backbone: dict[str, Any]) -> dict[str, Any]:
    """``backbone`` in full precision, with the block of the student's method."""
    quantizer = to_dict(load_option("quantizer", "fp32", {}))
    if "block" in cfg.quantizer:
        quantizer["block"] = cfg.quantizer.block
    return {"backbone": backbone, "quantizer": quantizer}


def _check_classes(teacher: DictConfig, classes: int) -> None:
    """timm gives weights for other classes a classifier at random, without a word."""
    from timm.models import get_pretrained_cfg  # with all of timm: seconds

    known = get_pretrained_cfg(teacher.model)
    if teacher.pretrained and known is not None and known.num_classes != classes:
        raise ValueError(
            f"teacher.pretrained=true: timm's weights of {teacher.model} know {known.num_classes} "
            f"classes, the data set has {classes}: take weights trained on it, with "
            "teacher.checkpoint=<file> or teacher=run"
        )


def _config_of_run(cfg: DictConfig) -> dict[str, Any]:
    folder, data = cfg.teacher.folder, cfg.dataset.name
    record, _ = trained(folder)
    if (known := record["config"]["dataset"]["name"]) != data:
        raise ValueError(
            f"teacher.folder={folder} was trained on {known}, the run is on {data}: a teacher has "
            "to know the same classes"
        )
    for key in ("mean", "std"):
        own, seen = to_dict(cfg.dataset)[key], record["config"]["dataset"][key]
        if own != seen:
            raise ValueError(
                f"teacher.folder={folder} saw images with dataset.{key}={seen}, the run has {own}: "
                "set the teacher's, or train a teacher of your own"
            )
    source = f"teacher.folder={folder}, result.json"
    return taken(record["config"], ("backbone", "quantizer"), source, trusted_packages(cfg))


def _network(cfg: DictConfig, config: Mapping[str, Any]) -> nn.Module:
    """The network of a config in its resolved form."""
    node, quantizer = config["backbone"], OmegaConf.create(dict(config["quantizer"]))
    wanted = {"num_classes": cfg.dataset.num_classes, "in_channels": cfg.dataset.in_channels}
    if wrong := {key: node[key] for key in wanted if node[key] != wanted[key]}:
        raise ValueError(
            f"teacher={cfg.teacher.name} has {wrong}, dataset={cfg.dataset.name} needs {wanted}: "
            "a teacher has to know the same classes"
        )
    return backbone_from_config(OmegaConf.create(dict(node)), quantizer_from_config(quantizer))
