"""The identity of a run: a hash of everything in its config that can change its numbers.

Two configs that resolve to the same values are the same run, however they were spelled. A key
counts unless `OUTSIDE` names it, so that what nobody thought of tells runs apart; docs/results.md
decides for every key. The content of the data is no part of it: it is a stamp beside it.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bnnbench.backbones.stems import identified
from bnnbench.records.gpus import visible_gpus
from bnnbench.records.identity_keys import (
    WATCHING,
    class_of,
    is_neutral,
    is_outside,
    is_outside_of,
)
from bnnbench.records.limits import limited
from bnnbench.records.names import absent, check_name
from bnnbench.records.store import trained

# In these arguments of Lightning's 1 is one batch and 1.0 is all of them.
_TYPED = ("trainer.limit_*_batches", "trainer.overfit_batches", "trainer.val_check_interval")
_CHOICES = ("dataset", "backbone", "quantizer", "loss", "recipe")


def fingerprint(cfg: DictConfig) -> str:
    """SHA-256 (hex) of a composed config's canonical form."""
    return digest(fingerprinted(cfg))


def digest(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what `fingerprinted` returned, or of the "config" that a result holds."""
    text = json.dumps(canonical(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config` that counts, without what is outside or neutral, `_target_`s by class.

    So a class may move to another module, and a config may gain a key, without renaming a run.
    """
    return _reduced(config, "")


def fingerprinted(cfg: DictConfig) -> dict[str, Any]:
    """The resolved part of the config that identifies the run, as a result keeps it.

    Only the keys it returns are resolved: others may hold interpolations that exist only inside a
    running job (`${hydra:...}`). `train: false` is part of it, so that an evaluation never passes
    for the training run. Files count by their content.

    Raises:
        ValueError: a group without a choice.
        FileNotFoundError: a checkpoint that is not there.
    """
    for group in (*_CHOICES, "trainer"):
        if not isinstance(cfg.get(group), DictConfig):
            raise ValueError(f"no {group} is chosen; choose one with {group}=<name>")
    subset = {
        str(key): _plain(cfg, str(key))
        for key in cfg
        if key != "callbacks" and not is_outside(str(key))
    }
    subset["backbone"] = identified(subset["backbone"])
    for key in ("init_from", "ckpt_path"):
        if (path := subset.get(key)) is not None:
            subset[key] = content_hash(key, path)
    if (named := subset.get("checkpoint_map")) is not None:
        from bnnbench.records.checkpoint_maps import map_hash  # only where a run has one

        subset["checkpoint_map"] = map_hash(named)
    if subset.get("teacher") is not None:
        subset["teacher"] = _taught(subset["teacher"])
    subset["world_size"] = world_size(cfg)
    subset["callbacks"] = _acting(cfg)
    return subset


def flattened(node: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Dotted keys of the leaves of nested mappings; an empty mapping is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{place}{key}.")
        else:
            flat[f"{place}{key}"] = value
    return flat


def run_name(cfg: DictConfig, identity: Mapping[str, Any] | None = None) -> str:
    """The run's folder: its choices and seed, readable, and eight digits of its fingerprint.

    It tells an evaluation from a run, a run that was limited or that has callbacks of its own from
    an ordinary one, and a run on other data of the same name by `paths.data_mark`. `identity` is
    `fingerprinted(cfg)` where that is known.
    """
    identity = identity or fingerprinted(cfg)
    if not cfg.get("train", True):  # the checkpoint says what it is, not this config
        return f"evaluation_{digest(identity)[:8]}"
    words = [*(choice(cfg, group) for group in _CHOICES), *_particulars(identity)]
    name = "_".join([*words, f"s{cfg.seed}", digest(identity)[:8]]).replace("/", "-")
    check_name("the run's folder", name)
    mark = OmegaConf.select(cfg, "paths.data_mark")
    return f"{name}_data{mark}" if mark else name


def choice(cfg: Any, group: str) -> str:
    """The option of a group by its name; `timm/<name>` of a library's models."""
    return str(cfg[group].get("model") or cfg[group]["name"])


def world_size(cfg: DictConfig) -> int:
    """Processes that share a run: the batch size of a config is each one's own."""
    devices, nodes = cfg.trainer.get("devices", 1), cfg.trainer.get("num_nodes", 1)
    if isinstance(devices, str) and "," in devices:
        devices = [word for word in devices.split(",") if word.strip()]
    if isinstance(devices, ListConfig | list):
        return len(devices) * nodes
    if str(devices) in ("auto", "None", "-1"):
        gpus = 0 if cfg.trainer.get("accelerator") == "cpu" else len(visible_gpus())
        return max(gpus, 1) * nodes
    return int(devices) * nodes


def register_resolvers() -> None:
    """`${run_name:}` in a config: the run's folder, for hydra.run.dir and hydra.sweep.subdir."""

    def resolve(_root_: DictConfig) -> str:
        return run_name(_root_)

    OmegaConf.register_new_resolver("run_name", resolve, replace=True)


def content_hash(key: str, path: str) -> str:
    """SHA-256 (hex) of a file that the config names under `key`; FileNotFoundError without it."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{key}={path}: {absent(path)}")
    stat = file.stat()
    return _hash_file(str(file.resolve()), stat.st_mtime_ns, stat.st_size)


def _plain(cfg: DictConfig, key: str) -> Any:
    """The value of a key with what is inside of it, resolved."""
    node = cfg[key]
    if not isinstance(node, DictConfig):
        return _canonical(node)
    kind = class_of(str(node.get("_target_")))
    inside = [str(name) for name in node if not is_outside_of(f"{key}.{name}", kind)]
    typed = {n for n in inside if any(fnmatchcase(f"{key}.{n}", place) for place in _TYPED)}
    return {n: _batches(node[n]) if n in typed else _canonical(node[n]) for n in inside}


def _batches(value: Any) -> Any:
    """A share of all batches as a float up to 1.0, a number of them as an integer."""
    return _canonical(value) if not isinstance(value, float) or value > 1 else value


def _acting(cfg: DictConfig) -> dict[str, Any]:
    """The callbacks that act on a run, and that it has lost its own seeding where it has."""
    nodes: Any = cfg.get("callbacks") or {}
    acting: dict[str, Any] = {}
    for key, node in nodes.items():
        if node is not None and not isinstance(node, DictConfig):
            raise ValueError(f"callbacks.{key}={node}: a callback is {{_target_: <class>, ...}}")
        if node is not None and class_of(str(node.get("_target_"))) not in WATCHING:
            acting[str(key)] = _without_paths(node)
    own = {"_target_": "EpochSeed", "seed": _canonical(cfg.seed)}
    seeding = acting.setdefault("reseed", None)
    if seeding is not None and _reduced(seeding, "callbacks.reseed") == own:
        del acting["reseed"]
    return acting


def _without_paths(node: DictConfig) -> dict[str, Any]:
    """A callback's arguments without the places that only a running job knows."""
    kept: dict[str, Any] = {}
    raw = OmegaConf.to_container(node, resolve=False)
    assert isinstance(raw, dict)
    for key in node:
        if isinstance(raw[key], dict):
            kept[str(key)] = _without_paths(node[key])
        elif "${paths." not in str(raw[key]) and "${hydra:" not in str(raw[key]):
            kept[str(key)] = _canonical(node[key])
    return kept


def _particulars(identity: Mapping[str, Any]) -> Iterator[str]:
    """Words of a name for what makes a run less, or other, than an ordinary one."""
    trainer = identity["trainer"]
    timed = trainer.get("max_time") is not None or trainer.get("max_steps") not in (None, -1)
    if timed or limited(trainer):
        yield "limited"
    if identity.get("ckpt_path") is not None:
        yield "continued"
    yield from identity["callbacks"]


def _taught(teacher: dict[str, Any]) -> dict[str, Any]:
    """The teacher's options; in place of files their content."""
    options = dict(teacher)
    if options.get("checkpoint") is not None:
        options["checkpoint"] = content_hash("teacher.checkpoint", options["checkpoint"])
    if "folder" in options:
        options["folder"] = content_hash("teacher.folder", str(trained(options["folder"])[1]))
    return options


def _reduced(node: Mapping[str, Any], place: str) -> dict[str, Any]:
    reduced = {}
    for key, value in node.items():
        where = f"{place}.{key}".lstrip(".")
        if is_outside(where) or is_neutral(where, value, str(node.get("_target_"))):
            continue
        if isinstance(value, Mapping):
            value = _reduced(value, where)
        elif isinstance(value, list):
            value = [_reduced(v, where) if isinstance(v, Mapping) else v for v in value]
        elif key == "_target_" and place != "task":  # which is nobody's but its author's
            value = class_of(str(value))
        reduced[key] = value
    return reduced


def _canonical(value: Any) -> Any:
    """One form for values that mean the same: 1 and 1.0, tuples and lists, paths and strings."""
    if isinstance(value, DictConfig):
        return {str(k): _canonical(value[k]) for k in value}
    if isinstance(value, ListConfig | list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a config cannot hold {type(value).__name__}: {value!r}")


@lru_cache(maxsize=64)
def _hash_file(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
