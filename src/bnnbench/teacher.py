"""A second network that the first learns from: trained before and frozen, or trained with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from bnnbench.backbones.base import Backbone
from bnnbench.checkpoints import BadCheckpoint, load_weights
from bnnbench.config import backbone_from_config, load_option, quantizer_from_config
from bnnbench.sweep.fingerprint import fingerprinted
from bnnbench.sweep.store import read_record


class FrozenTeacher:
    """Evaluates ``net`` without gradient.

    No module: nothing trains it, puts its batch norms into training mode or stores it once more.
    """

    joint = False

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return self.net(images)


class JointTeacher(nn.Module):
    """Trains ``net`` beside the student; gradients of shared terms reach both."""

    joint = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return self.net(images)


Teacher = FrozenTeacher | JointTeacher


def build_teacher(
    cfg: DictConfig, stages: Mapping[str, DictConfig], untrained: bool = False
) -> Teacher | None:
    """The teacher of ``cfg``, with its weights; None for ``teacher=none``.

    Args:
        cfg: of the run or stage.
        stages: the configs of this run's earlier stages by name, for ``teacher=stage``.
        untrained: leave out an earlier stage's weights, to check a run before it starts.

    Raises:
        ValueError: no such stage, a run that is not there, no weights, other classes or channels.
        BadCheckpoint: weights of another network.
    """
    if cfg.teacher.name == "none":
        return None
    net, weights = network_of(cfg, stages)
    if cfg.teacher.name == "timm" and weights is not None:
        _load_timm(net, str(weights))
    elif weights is not None and not (untrained and "stage" in cfg.teacher):
        load_weights(net, weights, strict=cfg.teacher.name != "joint")
    layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
    net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    return JointTeacher(net) if cfg.teacher.name == "joint" else FrozenTeacher(net)


def _load_timm(net: Any, file: str) -> None:
    """Weights as timm stores them, not under the suite's names."""
    from timm.models import load_checkpoint  # with all of timm: seconds

    try:
        load_checkpoint(net.model, file)
    except (RuntimeError, UnpicklingError) as error:
        raise BadCheckpoint(f"teacher.checkpoint={file}: {error}") from error


def network_of(
    cfg: DictConfig, stages: Mapping[str, DictConfig]
) -> tuple[Backbone, Path | str | None]:
    """The teacher's network, and where its weights are (None: where it stands). Raises as above."""
    kind = cfg.teacher.name
    if kind == "run":
        return _of_run(cfg)
    own = fingerprinted(cfg)["backbone"]
    if kind == "joint":
        twin = _network(cfg, {"backbone": own | {"nonlinearity": cfg.teacher.nonlinearity}})
        return twin, _weights(cfg, stages) if cfg.teacher.stage else None
    if kind == "stage":
        weights = _weights(cfg, stages)
        return _network(cfg, fingerprinted(stages[cfg.teacher.stage])), weights
    if cfg.teacher.checkpoint is None and not cfg.teacher.pretrained:
        raise ValueError("teacher=timm needs weights: teacher.checkpoint=<file> or pretrained=true")
    shape = {key: own[key] for key in ("num_classes", "in_channels", "image_size")}
    options = {"name": cfg.teacher.model, "pretrained": cfg.teacher.pretrained, **shape}
    node = OmegaConf.to_container(load_option("backbone", "timm", options), resolve=True)
    return _network(cfg, {"backbone": node}), cfg.teacher.checkpoint


def _weights(cfg: DictConfig, stages: Mapping[str, DictConfig]) -> Path:
    name = cfg.teacher.stage
    if name not in stages:
        raise ValueError(
            f"teacher.stage={name} is no earlier stage of this run; there are {list(stages)}"
        )
    return Path(stages[name].paths.stage_dir) / "checkpoints" / "last.ckpt"


def _of_run(cfg: DictConfig) -> tuple[Backbone, Path]:
    folder = Path(cfg.teacher.folder).expanduser()
    result, weights = read_record(folder / "result.json"), folder / "checkpoints" / "last.ckpt"
    if result is None or not weights.exists():
        raise ValueError(
            f"teacher.folder={folder} is no finished run: it needs result.json and "
            "checkpoints/last.ckpt, as a run leaves them"
        )
    return _network(cfg, result["config"]), weights


def _network(cfg: DictConfig, config: Mapping[str, Any]) -> Backbone:
    """The network of a config in its resolved form, full precision where it has no quantizer."""
    node = config["backbone"]
    wanted = {"num_classes": cfg.dataset.num_classes, "in_channels": cfg.dataset.in_channels}
    if wrong := {key: node[key] for key in wanted if node[key] != wanted[key]}:
        raise ValueError(
            f"teacher={cfg.teacher.name} has {wrong}, dataset={cfg.dataset.name} needs {wanted}: "
            "a teacher has to know the same classes"
        )
    quantizer = OmegaConf.create(config.get("quantizer") or load_option("quantizer", "fp32", {}))
    return backbone_from_config(OmegaConf.create(dict(node)), quantizer_from_config(quantizer))
