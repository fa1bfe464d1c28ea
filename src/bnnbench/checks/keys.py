"""Keys added on a command line (``+key=value``): each has to be one that something reads.

Hydra adds whatever is typed behind a ``+``. What takes the keys of a place is known: the arguments
of the class that its ``_target_`` names, what this package looks up by name, what an interpolation
of the config refers to, or else what the option's own file states. Imports lightly: reading a
signature takes torch, but only a key that is not among the usual ones needs that.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnnbench.paths import conf_dir

# Groups, and arguments of Lightning's trainer, that are added to most: these cost no import.
USUAL = {
    "": ("trainer", "callbacks", "dataset", "backbone", "quantizer", "loss", "recipe", "paths"),
    "dataset": ("eval_batch_size",),
    "trainer": (
        *("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches"),
        *("max_epochs", "max_steps", "min_epochs", "max_time", "fast_dev_run", "strategy"),
        *("check_val_every_n_epoch", "val_check_interval", "accumulate_grad_batches", "num_nodes"),
        *("gradient_clip_val", "deterministic", "detect_anomaly", "profiler", "benchmark"),
        *("accelerator", "devices", "precision", "enable_progress_bar", "num_sanity_val_steps"),
    ),
}
# What a run hands over itself, and how it is chosen.
GIVEN = {
    "trainer.callbacks": "+callbacks.<name>={_target_: <class>, ...}",
    "trainer.logger": "logger=csv, wandb, tensorboard, mlflow or none",
    "trainer.default_root_dir": "paths.output_dir=<folder>",
    "dataset.channels_last": "channels_last=false",
}
# Mappings of objects by any name, and what one of them is.
NAMED = {"callbacks": "callback", "loss.terms": "term", "logger": "logger"}
BY_DATASET = ("recipe.epochs", "recipe.batch_size", "recipe.effective_size")
SIDES = ("quantizer.weight", "quantizer.activation", "quantizer.output")
CALLED = ("trainer", "dataset", "backbone", "task", *SIDES)  # their keys are arguments
# What a layer or a run passes by position, before the keys.
LOGGERS = ("csv", "wandb", "tensorboard", "mlflow")  # of this package
FIRST = {"backbone": 1, **dict.fromkeys((*SIDES, *(f"logger.{key}" for key in LOGGERS)), 1)}
# Looked up by name, in any option of the group.
READ = {
    "quantizer": ("norm", "norm_start", "block", "bias"),
    "loss": ("terms", "task_weight", "label_smoothing", "kind", "error_bits"),
    "recipe": ("init_std", "stages", "epochs", "batch_size", "steps"),
}
SILENT = ("_target_", "defaults", "name", "task")  # of every option; no key to type


def check_added(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Refuse an override ``+key=value`` or ``++key=value`` of a key that nothing reads.

    Args:
        cfg: the composed config, with what was typed in it.
        typed: the overrides.

    Raises:
        ValueError: the message names the nearest and all valid keys.
    """
    for word in (word for word in typed if word.startswith("+")):
        key = word.lstrip("+").partition("=")[0].rpartition("@")[2]
        for place in _places(cfg, key):
            _check(cfg, place, word)


def check_added_to_hydra(hydra: DictConfig, typed: Sequence[str]) -> None:
    """The same for Hydra's own config, ``+hydra.key=value``, whose classes state their keys."""
    for word in (word for word in typed if word.startswith("+hydra.")):
        parts = word.lstrip("+").partition("=")[0].split(".")[1:]
        node: Any = hydra
        for number, name in enumerate(parts):
            kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
            if not is_dataclass(kind):
                break
            valid = [field.name for field in fields(kind)]
            if name not in valid:
                raise _unread(word, ".".join(["hydra", *parts[:number]]), name, valid)
            node = _at(node, name)


def _places(cfg: DictConfig, key: str) -> Iterator[str]:
    """A typed key, the mappings around it and all that stands in it, from the top down."""
    parts = key.split(".")
    if parts[0] not in cfg:  # a group whose option stands elsewhere: +experiment=<name>
        return
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from _inside(cfg, key)


def _inside(cfg: DictConfig, key: str) -> Iterator[str]:
    node = _at(cfg, key)
    for name in node if isinstance(node, DictConfig) else ():
        yield f"{key}.{name}"
        yield from _inside(cfg, f"{key}.{name}")


def _at(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.select(cfg, key, throw_on_resolution_failure=False) if key else cfg


def _check(cfg: DictConfig, key: str, word: str) -> None:
    parent, _, name = key.rpartition(".")
    if (name in SILENT and parent) or name in USUAL.get(parent, ()):
        return
    if key in GIVEN:
        raise ValueError(f"{word}: the run sets {key} itself; use {GIVEN[key]}")
    if parent in NAMED:
        _check_named(cfg, parent, name, word)
        return
    valid = _valid(cfg, parent)
    if valid is not None and name not in valid and not _referred(cfg, key):
        raise _unread(word, _named(cfg, parent), name, set(valid).difference(SILENT))


def _named(cfg: DictConfig, place: str) -> str:
    """A group with its option, or any other place as it is."""
    node = None if "." in place else _at(cfg, place)
    option = node.get("name") if place and isinstance(node, DictConfig) else None
    return f"{place}={option}" if option else place


def _check_named(cfg: DictConfig, parent: str, name: str, word: str) -> None:
    node = _at(cfg, f"{parent}.{name}")
    if node is None:
        return
    if isinstance(node, DictConfig) and "_target_" in node:
        _taken(cfg, f"{parent}.{name}")  # it is there
        return
    others = [str(key) for key in _at(cfg, parent) if key != name]
    new = f"a new {NAMED[parent]} is '+{parent}.<name>={{_target_: <class>, ...}}'"
    raise ValueError(f"{_unread(word, parent, name, others)}; {new}")


def _unread(word: str, parent: str, name: str, valid: Iterable[str]) -> ValueError:
    shown = sorted(valid)
    near = get_close_matches(name, shown, n=1)
    where = parent or "the top level"
    group = parent.partition("=")[0]
    meant = f" Did you mean '{f'{group}.{near[0]}'.lstrip('.')}'?" if near else ""
    listed = f"Valid keys of {where}: {', '.join(shown)}" if shown else f"{where} has no keys"
    return ValueError(f"{word}: nothing reads {name} of {where}.{meant} {listed}")


def _valid(cfg: DictConfig, place: str) -> Iterable[str] | None:
    """The keys that a mapping may have; None where it may have any."""
    if place in CALLED or place.rpartition(".")[0] in NAMED:
        taken = _taken(cfg, place)
        return _stated(cfg, place) if taken is None else taken
    if place in BY_DATASET:
        return {str(cfg.dataset.name), *_options("dataset")}
    if place == "" or place.startswith("recipe"):
        return _of_recipe(cfg, place) if place else _top()
    stated = _stated(cfg, place)
    return None if stated is None else {*stated, *READ.get(place, ())}


def _of_recipe(cfg: DictConfig, place: str) -> Iterable[str] | None:
    from bnnbench.optim.recipe import GROUP_KEYS, Recipe  # with torch
    from bnnbench.optim.roles import ROLES

    if place == "recipe":
        own = {field.name for field in fields(Recipe)}
        return {*own, *READ["recipe"], *(_stated(cfg, place) or ())}
    if place == "recipe.groups":
        return ROLES
    return GROUP_KEYS if place.startswith("recipe.groups.") else None


def _taken(cfg: DictConfig, place: str) -> set[str] | None:
    """The arguments of what is built from a mapping; None where it takes any."""
    node = _at(cfg, place)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return set()
    try:
        names = arguments(str(node["_target_"]), FIRST.get(place, 0))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{place}._target_={node['_target_']}: {error}") from error
    given = {key.rpartition(".")[2] for key in GIVEN if key.rpartition(".")[0] == place}
    return None if names is None else names - given


@cache
def arguments(target: str, first: int = 0) -> set[str] | None:
    """Names of the arguments of the class or function at a dotted path; None where it takes any.

    ``**options`` of a class are followed to the class that it inherits from, and an argument that
    is a dataclass, as the specs of data modules are, stands for its fields. ``first`` arguments
    are passed by position.
    """
    module, _, attribute = target.rpartition(".")
    kind = getattr(import_module(module), attribute)
    if not isinstance(kind, type):
        names, rest = _parameters(kind, first)
        return None if rest else names
    found: set[str] = set()
    rest = False
    for each in kind.__mro__[:-1]:
        if each.__module__.startswith("torch.nn."):  # takes none, whatever its signature says
            return found
        if "__init__" in vars(each):
            names, rest = _parameters(vars(each)["__init__"], 1 + first)
            found |= names
            first = 0
            if not rest:
                return found
    return None if rest else found


def has_default(target: str, name: str) -> bool:
    """Whether the class at a dotted path, or one that it inherits from, says a default of ``name``.

    The first of these that has an argument of that name decides.
    """
    module, _, attribute = target.rpartition(".")
    kind = getattr(import_module(module), attribute)
    starts = [vars(each).get("__init__") for each in getattr(kind, "__mro__", ())[:-1]]
    for start in filter(None, starts or [kind]):
        if (found := inspect.signature(start).parameters.get(name)) is not None:
            return found.default is not found.empty
    return False


def _parameters(function: Any, first: int) -> tuple[set[str], bool]:
    """Names that a function takes by keyword, and whether it takes any other."""
    parameters = list(inspect.signature(function).parameters.values())[first:]
    names: set[str] = set()
    for each in parameters:
        scope = vars(sys.modules[function.__module__])
        kind = scope.get(each.annotation) if isinstance(each.annotation, str) else each.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            names |= {field.name for field in fields(kind)}
        elif each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            names.add(each.name)
    return names, any(each.kind is each.VAR_KEYWORD for each in parameters)


def _top() -> set[str]:
    """What conf/train.yaml holds: its own keys, and the groups of its defaults."""
    own: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "train.yaml"), resolve=False)
    entries = [entry for entry in own["defaults"] if entry != "_self_"]
    groups = {str(key) for entry in entries for key, option in entry.items() if option is not None}
    plain = {key for key in groups if not re.search(r"[ /@]", key)}  # none of other packages
    return ({*own} | plain) - {"defaults", "hydra"}


def _stated(cfg: DictConfig, place: str) -> set[str] | None:
    """The keys of a mapping in the file of the group's option; None where that has none there."""
    group, _, inside = place.partition(".")
    node = _at(cfg, group)
    name = node.get("name", "default") if isinstance(node, DictConfig) else "default"
    file = conf_dir() / group / f"{name}.yaml"
    if not file.is_file():
        return None
    stated: Any = OmegaConf.load(file)
    stated = OmegaConf.select(stated, inside) if inside else stated
    return {str(key) for key in stated} if isinstance(stated, DictConfig) else None


def _options(group: str) -> list[str]:
    from bnnbench.config import options  # with torch

    return options(group)


def _referred(cfg: DictConfig, key: str) -> bool:
    """Whether an interpolation of the config reads a key, or one inside of it."""
    parent = key.rpartition(".")[0]
    if parent in CALLED or parent.rpartition(".")[0] in NAMED:  # handed over all the same
        return False
    pattern = re.compile(rf"(?<=[{{:,\s]){re.escape(key)}(?=[}}.,\[\s])")
    raw = OmegaConf.to_container(cfg, resolve=False)
    return any("${" in text and pattern.search(text) for text in _texts(raw))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node
