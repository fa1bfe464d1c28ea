"""Objects from the yaml files in conf/, with or without a Hydra run, from a checkout or a wheel."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError
from torch import nn

from bnnbench.layers import QuantizerSpec
from bnnbench.paths import conf_dir

IMAGE_DEFAULTS = {"in_channels": 3, "image_size": 32}


def options(group: str) -> list[str]:
    """Names of the options of a config group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def load_option(group: str, name: str, overrides: dict[str, Any]) -> DictConfig:
    """One option's yaml with ``overrides`` merged in; unknown names and keys are errors."""
    if name not in options(group):
        raise ValueError(f"{group}={name!r} does not exist; choose one of {options(group)}")
    node = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    OmegaConf.set_struct(node, True)
    try:
        node.merge_with(overrides)
    except ConfigKeyError as error:
        keys = [str(key) for key in node if key not in ("name", "_target_")]
        raise ValueError(f"{group}={name}: no such key in {overrides}; valid: {keys}") from error
    return node


def target(node: dict[str, Any]) -> partial:
    """The callable named by ``node['_target_']`` with the other keys as its arguments."""
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    module, _, attribute = node["_target_"].rpartition(".")
    return partial(getattr(importlib.import_module(module), attribute), **arguments)


def to_dict(node: DictConfig) -> dict[str, Any]:
    """A plain resolved dictionary."""
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def quantizer_from_config(node: DictConfig) -> QuantizerSpec:
    """The method that ``cfg.quantizer`` describes."""
    config = to_dict(node)
    output = target(config["output"]) if config["output"] else None
    sides = target(config["weight"]), target(config["activation"])
    return QuantizerSpec(config["name"], *sides, output, config)


def load_quantizer(name: str, **overrides: Any) -> QuantizerSpec:
    """The method of conf/quantizer/<name>.yaml with its options overridden.

    Raises:
        ValueError: an unknown name or key; the message lists the valid ones.
    """
    return quantizer_from_config(load_option("quantizer", name, overrides))


def backbone_from_config(node: DictConfig, quantizer: QuantizerSpec) -> nn.Module:
    """The network that ``cfg.backbone`` describes, binarized with ``quantizer``."""
    config = {k: value for k, value in to_dict(node).items() if k not in ("name", "task")}
    return target(config)(quantizer)


def build_backbone(
    name: str, quantizer: str | QuantizerSpec = "fp32", num_classes: int = 10, **overrides: Any
) -> nn.Module:
    """The network of conf/backbone/<name>.yaml binarized with ``quantizer``.

    Args:
        name: option of the backbone group.
        quantizer: option of the quantizer group, or what ``load_quantizer`` returned.
        num_classes: length of the logits.
        **overrides: keys of the backbone's yaml; ``in_channels`` is 3 and ``image_size`` 32 unless
            given here.

    Raises:
        ValueError: an unknown name or key, or a structure that makes no sense.
    """
    spec = load_quantizer(quantizer) if isinstance(quantizer, str) else quantizer
    data = {"num_classes": num_classes, **IMAGE_DEFAULTS}
    node = load_option("backbone", name, overrides)
    root = OmegaConf.create({"quantizer": spec.config, "dataset": data, "backbone": node})
    return backbone_from_config(root.backbone, spec)
