"""Configs that lie in files: what of them is built, and which code that may run.

A result, a stage's record and a checkpoint hold the config of their run, and a network is built
from it where the run teaches or is evaluated. Such files are handed on, so they may name classes of
this package alone, each in the room that its group is built from, and of packages that the user
names with ``trust=[package]``. What is typed, and the yaml files of conf/, may name anything and
never come here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any

from omegaconf import DictConfig, ListConfig

from bnnbench.backbones.stems import as_stored

PACKAGE = "bnnbench"
# The rooms that a group's classes stand in; no file names a class of another group.
ROOMS: dict[str, tuple[str, ...]] = {
    "quantizer": ("quantizers",),
    "loss": ("losses",),
    "backbone": ("backbones",),
    "dataset": ("data",),
}
ROOMS["recipe"] = tuple(room for rooms in ROOMS.values() for room in rooms)  # what stages set
PLAIN = (str, int, float, bool, type(None))
MOST_VALUES, LONGEST_KEY = 100_000, 1000  # of one group; a config has hundreds, of a few words
# Arguments of timm.create_model that read another file or a web page.
LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


class Untrusted(ValueError):
    """A file would run code, or read what it has no business with."""


def trusted_packages(cfg: DictConfig) -> list[str]:
    """The packages of ``cfg.trust``. Raises ValueError where it is no list of their names."""
    named = cfg.get("trust") or []
    if not isinstance(named, ListConfig | list):
        raise ValueError(f"trust={named!r}: give a list of packages, trust=[{named}]")
    for name in named:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"trust={list(named)}: {name!r} is no package, such as mypkg")
    return list(named)


def taken(
    config: object, keys: Sequence[str], source: str, trust: Sequence[str] = ()
) -> dict[str, Any]:
    """A copy of some groups of a file's config, once it is known to be harmless.

    No weights are fetched because a file says so: what is built gets the file's own.

    Args:
        config: as the file holds it, resolved.
        keys: the groups, or single values beside them.
        source: names the file in messages.
        trust: packages whose classes the file may name as well.

    Raises:
        Untrusted: a class that is neither this package's nor of a trusted one, an interpolation, a
            value that is none of a config, or a key that is missing.
    """
    if not isinstance(config, Mapping) or (missing := [k for k in keys if k not in config]):
        what = "no config" if not isinstance(config, Mapping) else f"a config without {missing[0]}"
        raise Untrusted(f"{source}: it holds {what}: take another file")
    for key in keys:
        for place, value in _values(config[key], key, source):
            _check_value(place, value, source, trust)
    found = {key: deepcopy(config[key]) for key in keys}
    backbone = found.get("backbone")
    if isinstance(backbone, dict):
        if "pretrained" in backbone:
            backbone["pretrained"] = False
        found["backbone"] = as_stored(backbone)
    return found


def _values(node: object, place: str, source: str) -> Iterator[tuple[str, object]]:
    """The values in ``node`` by dotted key. Raises Untrusted where there is no end to them."""
    waiting = [(place, node)]
    for _ in range(MOST_VALUES):
        if not waiting or len(place) > LONGEST_KEY:
            break
        place, value = waiting.pop()
        if place.endswith("._target_"):  # a list of them would hide what it names
            yield place, value
        elif isinstance(value, Mapping):
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise Untrusted(f"{source}: {place} has the key {wrong[0]!r}, which is no text")
            waiting += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{place}.{number}", inner) for number, inner in enumerate(value)]
        else:
            yield place, value
    if waiting:
        raise Untrusted(f"{source}: {place[:80]} is no config: there is no end to it")


def _check_value(place: str, value: object, source: str, trust: Sequence[str]) -> None:
    key = place.partition(".")[2]
    if not isinstance(value, PLAIN):
        raise Untrusted(f"{source}: {place} is of {type(value).__name__}, which no config holds")
    if place.rpartition(".")[2] == "_target_":
        _check_target(place, value, source, trust)
    elif isinstance(value, str) and "${" in value:
        raise Untrusted(f"{source}: {place}={value!r} would be looked up on this machine")
    elif key.startswith("kwargs.") and key.split(".")[1] in LOADING and value:
        raise Untrusted(f"{source}: {place}={value!r} would load weights from elsewhere")


def _check_target(place: str, path: object, source: str, trust: Sequence[str]) -> None:
    homes = tuple(f"{PACKAGE}.{room}." for room in ROOMS.get(place.partition(".")[0], ()))
    parts = str(path).split(".")
    named = len(parts) > 1 and all(part.isidentifier() for part in parts)
    others = {*trust} - {PACKAGE}
    may = named and (parts[0] in others or str(path).startswith(homes))
    try:
        harmless = may and _defined_in(str(path), homes, others)
    except (ImportError, AttributeError) as error:
        raise Untrusted(
            f"{source}: {place}={path} is not there ({error}): take "
            "another file, or the version that wrote this one"
        ) from error
    if not harmless:
        raise Untrusted(
            f"{source}: {place}={str(path)!r} is nothing that this package builds there, so it is "
            f"not run{_advice(parts, trust)}"
        )


def _defined_in(path: str, homes: tuple[str, ...], others: set[str]) -> bool:
    """Whether a class or function stands at ``path``, written there and not merely imported."""
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name)
    if not isinstance(found, type | FunctionType | BuiltinFunctionType) or name.startswith("_"):
        return False
    defined = f"{found.__module__}."
    return defined.startswith(homes) or defined.partition(".")[0] in others


def _advice(parts: Sequence[str], trust: Sequence[str]) -> str:
    """How to have it run all the same; no file may ask that of Python's own library."""
    package = parts[0]
    if package in (PACKAGE, *trust, *sys.stdlib_module_names) or not package.isidentifier():
        return ": take another file"
    return f"; where you know its code, name its package: trust=[{package}]"
