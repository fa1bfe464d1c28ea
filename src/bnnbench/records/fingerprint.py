"""The identity of a run: a hash of everything in its config that can change its numbers.

Two configs that resolve to the same values are the same run, however they were spelled. Paths,
loggers and devices do not count.
"""

import hashlib
import json
import math
from enum import Enum
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bnnbench.records.store import trained

# Group -> keys of it that change no number, or that another group already holds resolved.
GROUPS: dict[str, tuple[str, ...]] = {
    "quantizer": (),
    "loss": (),
    "backbone": ("task",),
    "dataset": ("data_dir", "workers", "task"),
    # trainer.max_epochs and dataset.batch_size hold this dataset's entry: a recipe that
    # gains another dataset must not make finished runs look new.
    "recipe": ("epochs", "batch_size"),
    "trainer": (
        "accelerator",
        "devices",
        "strategy",
        "num_nodes",
        "enable_*",
        "log_every_n_steps",
        "default_root_dir",
    ),
}
CHECKPOINTS = ("init_from", "ckpt_path")  # a run that starts from a file depends on its content


def fingerprint(cfg: DictConfig) -> str:
    """SHA-256 (hex) of the canonical JSON of `fingerprinted(cfg)`."""
    text = json.dumps(fingerprinted(cfg), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprinted(cfg: DictConfig) -> dict[str, Any]:
    """The resolved part of the config that identifies the run, in canonical form.

    Only the keys it returns are resolved: others may hold interpolations that exist only inside a
    running job (`${hydra:...}`). `train: false` is part of it, so that an evaluation never passes
    for the training run.
    """
    subset: dict[str, Any] = {g: _without(cfg, g, left_out) for g, left_out in GROUPS.items()}
    subset["seed"] = _canonical(cfg.seed)
    for key in CHECKPOINTS:
        path = cfg.get(key)
        subset[key] = None if path is None else _content_hash(key, str(path))
    if subset["ckpt_path"] is None:
        del subset["ckpt_path"]
    if (teacher := cfg.get("teacher")) is not None and teacher.name != "none":
        subset["teacher"] = _taught(teacher)
    if not cfg.get("train", True):
        subset["train"] = False
    return subset


def run_name(cfg: DictConfig) -> str:
    """The run's folder: its choices and seed, readable, and eight digits of its fingerprint."""
    choices = [choice(cfg, g) for g in ("dataset", "backbone", "quantizer", "loss", "recipe")]
    return "_".join([*choices, f"s{cfg.seed}", fingerprint(cfg)[:8]]).replace("/", "-")


def choice(cfg: DictConfig, group: str) -> str:
    """The option of a group by its name; `timm/<name>` of a library's models."""
    return str(cfg[group].get("model") or cfg[group].name)


def register_resolvers() -> None:
    """`${run_name:}` in a config: the run's folder, for hydra.run.dir and hydra.sweep.subdir."""

    def resolve(_root_: DictConfig) -> str:
        return run_name(_root_)

    OmegaConf.register_new_resolver("run_name", resolve, replace=True)


def _without(cfg: DictConfig, group: str, left_out: tuple[str, ...]) -> dict[str, Any]:
    node = cfg.get(group)
    if not isinstance(node, DictConfig):
        raise ValueError(f"no {group} is chosen; choose one with {group}=<name>")
    kept = [str(k) for k in node if not any(fnmatch(str(k), pattern) for pattern in left_out)]
    return {key: _canonical(node[key]) for key in kept}


def _taught(teacher: DictConfig) -> dict[str, Any]:
    """The teacher's options; in place of files their content."""
    options = {str(key): _canonical(teacher[key]) for key in teacher}
    if options.get("checkpoint") is not None:
        options["checkpoint"] = _content_hash("teacher.checkpoint", options["checkpoint"])
    if "folder" in options:
        options["folder"] = _content_hash("teacher.folder", str(trained(options["folder"])[1]))
    return options


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


def _content_hash(key: str, path: str) -> str:
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{key}={path}: there is no such file")
    stat = file.stat()
    return _hash_file(str(file.resolve()), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hash_file(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
