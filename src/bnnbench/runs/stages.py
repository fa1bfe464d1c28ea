"""A run in stages: ordered overrides of one config, each started from the one before.

``recipe.stages`` is a list of ``{name, init_from, set}``: ``set`` maps dotted keys of the config to
values, or a group's name to another of its options (``loss: bonn``); ``init_from: previous`` starts
from the last weights of the stage before. Every stage has a fresh optimizer and schedule, and a
folder of its own inside the run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnnbench.checks.kinds import shown
from bnnbench.config import load_option, options, to_dict
from bnnbench.records.names import check_name
from bnnbench.records.store import stage_folder
from bnnbench.runs.reuse import Run

GROUPS = ("quantizer", "loss", "backbone", "dataset", "teacher")  # their files have no defaults
KEYS = ("name", "init_from", "set")
PLAIN = {"loss": "task", "teacher": "none"}  # where nobody chose any


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as in the config; None for the only stage of an ordinary run.
        cfg: the whole config of this stage.
        continues: whether it starts from the weights of the stage before.
    """

    name: str | None
    cfg: DictConfig
    continues: bool

    @property
    def folder(self) -> Path:
        """Where checkpoints and the stage's record go."""
        return Path(self.cfg.paths.stage_dir)

    @cached_property
    def run(self) -> Run:
        """The stage as a run of its own config."""
        return Run(self.cfg, self.folder)


def stages(cfg: DictConfig) -> list[Stage]:
    """The stages of ``cfg``; a run without ``recipe.stages`` is its own only one.

    Raises:
        ValueError: an unknown key, a stage without a name or twice the same, ``init_from`` that is
            not ``previous``, the first stage asking for one, or a loss or teacher that was chosen,
            or typed in part, although a stage has its own.
    """
    nodes = OmegaConf.to_container(cfg.recipe.stages, resolve=True)
    assert isinstance(nodes, list)
    if not nodes:
        return [Stage(None, cfg, continues=False)]
    names = [node.get("name") for node in nodes]
    if None in names or len(set(names)) < len(names):
        raise ValueError(f"recipe.stages: every stage needs a name of its own, got {names}")
    _check_overruled(cfg, nodes)
    return [_stage(cfg, nodes, number) for number in range(1, 1 + len(nodes))]


def _check_overruled(cfg: DictConfig, nodes: list[dict[str, Any]]) -> None:
    """Refuse a typed key of a loss or a teacher that every stage has a value of its own for."""
    own = set.intersection(*(set(node.get("set") or {}) for node in nodes))
    for key in (key for group in PLAIN for key in _typed(cfg, group) if key in own):
        raise ValueError(
            f"recipe.stages: every stage sets {key}, so that what was typed for it would be "
            "without effect; leave it out, or change the stages"
        )


def _stage(cfg: DictConfig, nodes: list[dict[str, Any]], number: int) -> Stage:
    node = nodes[number - 1]
    where = f"recipe.stages, {node['name']}"
    if unknown := sorted(set(node) - set(KEYS)):
        raise ValueError(f"{where}: no such key {unknown}; there are {list(KEYS)}")
    check_name("recipe.stages, name", node["name"])
    start = node.get("init_from")
    if start not in (None, "previous"):
        raise ValueError(f"{where}: init_from={start!r}: the only choice is previous")
    if start and number == 1:
        raise ValueError(f"{where}: the first stage has no previous one; use init_from=<file>")
    staged = deepcopy(cfg)
    staged.recipe.stages = nodes  # as the whole run resolves them, not with this stage's epochs
    if number > 1:
        staged.init_from = None
    staged.paths.stage = stage_folder(number, node["name"])
    changes = node.get("set") or {}
    for group, plain in PLAIN.items():
        wanted = changes.get(group, plain)
        if wanted != plain and cfg[group].name not in (plain, wanted):
            raise ValueError(
                f"{where}: this stage has {group}={wanted}, so {group}={cfg[group].name} "
                "would be without effect; leave it out, or change the stage"
            )
        _check_typed(cfg, group, changes, where)
    if "quantizer" in changes:
        _follow(staged)
    for key, value in changes.items():
        override(staged, key, value, where)
    return Stage(node["name"], staged, continues=bool(start))


def _follow(staged: DictConfig) -> None:
    """Let a structure that is the method's own be that of the stage's method, typed or not.

    The name of the run knows values alone: two networks would have one name otherwise.
    """
    name = staged.backbone.name
    if name not in options("backbone"):
        return
    own, built = to_dict(staged.quantizer), to_dict(staged.backbone)
    written = OmegaConf.to_container(load_option("backbone", name, {}), resolve=False)
    assert isinstance(written, dict)
    for key, value in written.items():
        if value == f"${{quantizer.{key}}}" and built[str(key)] == own.get(str(key)):
            staged.backbone[key] = value


def _check_typed(cfg: DictConfig, group: str, changes: Mapping[str, Any], where: str) -> None:
    """Refuse changes that replace what a loss or a teacher has beside its own file.

    A key with a value of its own in a stage stays: the stages in between have what was typed.
    """
    for typed in _typed(cfg, group):
        for key, value in changes.items():
            if key == group and PLAIN[group] == value != cfg[group].name:
                continue  # this stage goes without, and without its parts
            if typed.removeprefix("~").startswith(f"{key}."):
                raise ValueError(
                    f"{where}: this stage has {key}={shown(value)}, so {typed} would be without "
                    "effect in it; leave it out, or change the stage"
                )


def _typed(cfg: DictConfig, group: str) -> list[str]:
    """Keys of a group's option that are not as its own file has them; ~ before one left out."""
    name = cfg[group].get("name")
    if name not in options(group):  # a file of somebody's own
        return []
    plain = copy(cfg)
    plain[group] = load_option(group, name, {})  # whose keys may be those of another group
    own, given = (OmegaConf.to_container(node[group], resolve=True) for node in (plain, cfg))
    assert isinstance(own, dict)
    assert isinstance(given, dict)
    return list(_differences(own, given, group))


def _differences(own: Mapping[Any, Any], given: Mapping[Any, Any], place: str) -> Iterator[str]:
    yield from (f"~{place}.{key}" for key in own if key not in given)
    for key, value in given.items():
        if key not in own:
            yield f"{place}.{key}"
        elif isinstance(value, dict) and isinstance(own[key], dict):
            yield from _differences(own[key], value, f"{place}.{key}")
        elif value != own[key]:
            yield f"{place}.{key}"


def override(cfg: DictConfig, key: str, value: Any, where: str) -> None:
    """Give a dotted key, or a group, another value. ValueError says so where there is none."""
    if key in GROUPS and isinstance(value, str):
        cfg[key] = load_option(key, value, {})
        return
    try:
        if OmegaConf.select(cfg, key, throw_on_missing=False) is None:
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, parent) if parent else cfg
            if node is None or name not in list(node):  # it may be one that has no value yet
                raise ValueError(f"{where}: there is no key {key} in the config")
        OmegaConf.update(cfg, key, value, merge=False)
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {key}={value!r}: {error}") from error
