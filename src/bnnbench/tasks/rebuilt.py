"""Networks and tasks from the config that a checkpoint holds, and what each says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from bnnbench.config import backbone_from_config, quantizer_from_config, target
from bnnbench.losses import LossTerm, task_loss
from bnnbench.losses.distillation import TeacherTerm
from bnnbench.losses.regularizer import Regularizer
from bnnbench.optim.recipe import Recipe
from bnnbench.records.foreign import taken
from bnnbench.records.signature import BadCheckpoint, Signature, read_checkpoint, signature_of

LOSS_KEYS = ("label_smoothing", "kind", "error_bits")  # what a yaml of the loss group may state
NETWORK = ("quantizer", "backbone", "dataset")
TASK = (*NETWORK, "loss", "recipe")


@dataclass(frozen=True)
class Described:
    """A checkpoint that says what network it is.

    Attributes:
        content: all that it holds, on the CPU.
        signature: whose it is, and on what it was trained.
        config: the groups of the run's config that were asked for, known to be harmless.
    """

    content: dict[str, Any]
    signature: Signature
    config: dict[str, Any]

    @property
    def task(self) -> str:
        """``classification`` or ``detection``."""
        return str(self.config["dataset"].get("task", "classification"))

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels; those of a set without names are its labels."""
        count = self.config["dataset"].get("num_classes", 0)
        return list(self.signature.classes) or [str(label) for label in range(count)]


def described(
    path: Path | str, keys: Sequence[str], trust: Sequence[str] = ()
) -> Described | dict[str, Any]:
    """What the checkpoint ``path`` says of itself; its content where that is nothing.

    Args:
        path: the file.
        keys: groups of the config that are needed.
        trust: packages whose classes the checkpoint may name beside this one.

    Raises:
        BadCheckpoint: no such file, or a damaged one.
        Untrusted: it names code of packages that ``trust`` does not.
    """
    content = read_checkpoint(path)
    signed = signature_of(content)
    if signed is None:
        return content
    return Described(content, signed, taken(signed.config, keys, str(path), trust))


@contextmanager
def building(path: Path | str, instead: str) -> Iterator[None]:
    """Tell in one line which checkpoint it is whose config the block cannot build.

    What is said in a line already, a ValueError, is left as it is.

    Args:
        path: of the checkpoint.
        instead: what to do about it.

    Raises:
        BadCheckpoint: in the place of what a config of another version fails with.
    """
    try:
        yield
    except (TypeError, KeyError, AttributeError, ImportError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        reason = " ".join(what.split())
        raise BadCheckpoint(
            f"{path}: this version cannot build what its config describes ({reason}); {instead}"
        ) from error


def network_of(config: Mapping[str, Any]) -> nn.Module:
    """The network, untrained, of a config's groups ``quantizer`` and ``backbone``."""
    quantizer = quantizer_from_config(OmegaConf.create(dict(config["quantizer"])))
    return backbone_from_config(OmegaConf.create(dict(config["backbone"])), quantizer)


def loss_of(task: str, node: Mapping[str, Any]) -> nn.Module:
    """The task's own loss of the group ``loss``."""
    return task_loss(task, **{key: node[key] for key in LOSS_KEYS if key in node})


def recipe_of(node: Mapping[str, Any]) -> Recipe:
    """Optimiser and schedule of the group ``recipe``."""
    names = [field.name for field in fields(Recipe)]
    return Recipe(**{name: node[name] for name in names if name in node})


def terms_of(node: Mapping[str, Any]) -> dict[str, LossTerm | Regularizer]:
    """The terms of the group ``loss`` by name."""
    return {name: target(term)() for name, term in node["terms"].items()}


def arguments_of(found: Described, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for the constructor of the checkpoint's task, but those ``given``.

    Without a teacher among these the loss terms that ask one are left out.
    """
    config, dataset = found.config, found.config["dataset"]
    backbone = dict(config["backbone"])
    if "num_classes" in given:
        backbone["num_classes"] = given["num_classes"]
    builders: dict[str, Callable[[], Any]] = {
        "net": lambda: network_of(config | {"backbone": backbone}),
        "loss": lambda: loss_of(found.task, config["loss"]),
        "recipe": lambda: recipe_of(config["recipe"]),
        "evaluates_on": lambda: "val" if dataset.get("val_fraction") else "test",
        "terms": lambda: _terms(config, "teacher" in given),
    }
    if found.task == "detection":
        builders |= {
            "classes": lambda: found.class_names,
            "interpolation": lambda: dataset["interpolation"],
        }
    else:
        builders |= {
            "num_classes": lambda: dataset["num_classes"],
            "task_weight": lambda: config["loss"].get("task_weight", 1.0),
            "class_weights": lambda: dataset.get("class_weights"),
        }
    return {name: build() for name, build in builders.items() if name not in given}


def _terms(config: Mapping[str, Any], taught: bool) -> dict[str, LossTerm | Regularizer]:
    terms = terms_of(config["loss"])
    return {name: t for name, t in terms.items() if taught or not isinstance(t, TeacherTerm)}


def asks_teacher(found: Described) -> list[str]:
    """Names of the checkpoint's loss terms that need a teacher."""
    terms = terms_of(found.config["loss"])
    return [name for name, term in terms.items() if isinstance(term, TeacherTerm) and term.weight]
