"""Types and ranges of a composed config, checked before anything is read, built or written.

What `stated` has of a key goes first. Options of the groups in `BY_EXAMPLE` are otherwise held
against the value in their own yaml file, so that a new method or loss needs no line here. Values
that follow from others (``${...}``) are checked where those stand. Imports lightly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnnbench.checks.kinds import (
    FLAG,
    LIST,
    MAPPING,
    NULL,
    TEXT,
    Kind,
    listed,
    number,
    shown,
    whole,
)
from bnnbench.checks.stated import KINDS, LENGTH
from bnnbench.paths import conf_dir
from bnnbench.resolvers import COUNTED

BY_EXAMPLE = ("quantizer", "loss", "backbone", "dataset", "callbacks")
# Keys that a recipe has by data set, where they are looked up, and what to give for another one.
BY_DATASET = {
    "epochs": ("trainer.max_epochs", "<epochs>"),
    "batch_size": ("dataset.batch_size", "<images>"),
    "effective_size": (
        "recipe.groups.latent.effective_size",
        "<10 times the number of training images>",
    ),
}


def check_config(cfg: DictConfig) -> None:
    """Refuse values of a wrong type or out of their range.

    Raises:
        ValueError: the message names every such key, its value and what to give.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    wrong = [*_misfits(raw)] or [*_without_entry(cfg, raw)]
    wrong = wrong or [*_without_end(cfg), *_without_history(raw)]
    if wrong:
        raise ValueError("; ".join(wrong))


def _misfits(raw: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in _values(raw):
        if value == "???":
            yield f"{key} has no value: give {key}=<value>"
            continue
        kind = _kind(key, raw)
        if kind is not None and not kind.holds(value):
            yield f"{key}={shown(value)}: give {kind.advice}"


def _without_entry(cfg: DictConfig, raw: Mapping[Any, Any]) -> Iterator[str]:
    """What is looked up by the name of a data set that the recipe does not know."""
    for key, (place, value) in BY_DATASET.items():
        node: Any = raw
        for part in place.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node == f"${{by_dataset:{key}}}" and raw["dataset"].get("_target_") in COUNTED:
            continue  # it follows from the size of the set
        if node in (f"${{recipe.{key}.${{dataset.name}}}}", f"${{by_dataset:{key}}}"):
            name = cfg.dataset.name
            if name not in (raw["recipe"].get(key) or {}):
                yield f"recipe.{key} has none for {name}: give +recipe.{key}.{name}={value}"


def _without_end(cfg: DictConfig) -> Iterator[str]:
    """A training that nothing ends, or only Lightning's own thousand epochs."""
    epochs, steps, own = (
        OmegaConf.select(cfg, key)
        for key in ("trainer.max_epochs", "trainer.max_steps", "recipe.steps")
    )
    if epochs in (None, -1) and "trainer" in cfg and own is None and steps in (None, -1):
        yield f"trainer.max_epochs={shown(epochs)}: give {LENGTH.advice}"


def _without_history(raw: Mapping[Any, Any]) -> Iterator[str]:
    """A training whose result nothing could be written from."""
    nodes = (raw.get("callbacks") or {}).values() if raw.get("train") else ()
    counts = "trainer" not in raw or raw["trainer"].get("max_epochs") == 0
    targets = [str(node.get("_target_")) for node in nodes if isinstance(node, dict)]
    if raw.get("train") and not counts and not any(t.endswith("History") for t in targets):
        yield (
            "callbacks.history=null: leave this override out, the result is written from what "
            "bnnbench.callbacks.history.History remembers"
        )


def _values(node: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values, mappings and what is inside of them, without ``${...}``."""
    for key, value in node.items():
        where = f"{place}{key}"
        if where in ("hydra", "paths", "table", "scale"):
            continue
        if not _open(value):
            yield where, value
        if isinstance(value, dict):
            yield from _values(value, f"{where}.")


def _open(value: Any) -> bool:
    """Whether a value follows from another one."""
    if isinstance(value, list):
        return any(map(_open, value))
    return isinstance(value, str) and "${" in value


def _kind(key: str, raw: Mapping[Any, Any]) -> Kind | None:
    """What a key may hold; None where nothing is known of it."""
    stated = _stated(key)
    if stated is not None or key.partition(".")[0] not in BY_EXAMPLE:
        return stated
    return _like(_counterpart(key, raw), key, raw)


@cache
def _stated(key: str) -> Kind | None:
    """The first entry of KINDS that fits; a star stands for part of one word of a key."""
    fitting = (
        pattern
        for pattern in KINDS
        if pattern.count(".") == key.count(".") and fnmatchcase(key, pattern)
    )
    pattern = next(fitting, None)
    return None if pattern is None else KINDS[pattern]


def _like(example: Any, key: str, raw: Mapping[Any, Any]) -> Kind | None:
    """The kind of a value that stands in a yaml file under ``key``."""
    if example == "???":
        return TEXT
    if isinstance(example, str) and _open(example):
        named = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", example)
        if named is None:
            return None
        dots, rest = named.groups()
        above = key.split(".")[: -len(dots)] if dots else []
        return _kind(".".join([*above, rest]), raw)
    if isinstance(example, list):
        kind = _like(example[0], key, raw) if example else None
        return LIST if kind is None else listed(kind)
    by_type = {bool: FLAG, int: whole(), float: number(), str: TEXT | NULL, dict: MAPPING | NULL}
    return by_type.get(type(example))


def _counterpart(key: str, raw: Mapping[Any, Any]) -> Any:
    """What stands under a key in the yaml file of the option that a config has of its group.

    None where nothing does, or another class was put in its place.
    """
    group, *rest = key.split(".")
    own = raw.get(group)
    example = _example(group, _option(group, own)) if isinstance(own, dict) else None
    for part in rest:
        if not isinstance(example, dict) or not isinstance(own, dict):
            return None
        if example.get("_target_") != own.get("_target_"):
            return None
        example, own = example.get(part), own.get(part)
    return example


def _option(group: str, node: Mapping[Any, Any]) -> str:
    if group == "callbacks":
        return "default"
    return "timm" if "model" in node else str(node.get("name"))


@cache
def _example(group: str, option: str) -> Any:
    """The yaml of an option; None for one that is not the suite's own."""
    file = conf_dir() / group / f"{option}.yaml"
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else None
