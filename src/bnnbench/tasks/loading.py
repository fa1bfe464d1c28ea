"""Lightning's ``load_from_checkpoint`` for checkpoints that say themselves what they are."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from bnnbench.records.checkpoints import load_weights
from bnnbench.records.signature import BadCheckpoint, DamagedCheckpoint
from bnnbench.records.states import check_finite
from bnnbench.tasks.rebuilt import TASK, Described, arguments_of, asks_teacher, building, described

T = TypeVar("T", bound=nn.Module)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
CLASSES = {"classification": "Classification", "detection": "Detection"}


def read(path: Path, unsafe: bool, trust: Sequence[str]) -> Described | dict[str, Any] | None:
    """What a checkpoint says of itself, its content where it says nothing.

    Args:
        path: the file.
        unsafe: whether Lightning may unpickle what cannot be read safely; None stands for that.
        trust: packages whose classes it may name beside this one.

    Raises:
        BadCheckpoint: no such file, or one that cannot be read.
        Untrusted: it names code of packages that ``trust`` does not.
    """
    try:
        return described(path, TASK, trust)
    except DamagedCheckpoint:
        if not unsafe:
            raise
        return None


def rebuilt(
    kind: Callable[..., T], found: Described, path: Path | str, given: Mapping[str, Any]
) -> T:
    """The task of a checkpoint, untrained.

    Args:
        kind: its class.
        found: the checkpoint with all groups of ``TASK``.
        path: of the checkpoint, for messages.
        given: arguments in the place of the checkpoint's.

    Raises:
        BadCheckpoint: its config describes what this version, or ``kind``, cannot build.
    """
    stored = dict(found.content.get("hyper_parameters", {}))  # of a class that saves some
    with building(path, "give by keyword what differs, such as net=<network>"):
        arguments = arguments_of(found, given)
        return kind(**(_accepted(kind, arguments | stored) | dict(given)))


def _accepted(kind: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``arguments`` that ``kind`` has a parameter for, all where it takes any."""
    parameters = signature(kind).parameters
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


def fill(task: nn.Module, content: Mapping[str, Any], path: Path | str, strict: bool) -> None:
    """Load a checkpoint's weights into its task; those of a teacher that it has not are left out.

    Args:
        task: with the network as ``net``.
        content: what ``path`` holds.
        path: the file.
        strict: refuse any difference; else as ``load_state_dict(strict=False)``.

    Raises:
        BadCheckpoint: weights of another network, or some that are no finite numbers.
    """
    taught = any(name.startswith("teacher.") for name in task.state_dict())
    state = {
        name: tensor
        for name, tensor in content.get("state_dict", {}).items()
        if taught or not name.startswith("teacher.")
    }
    check_finite(state, str(path))
    if strict:
        load_weights(task.net, path)  # pyright: ignore[reportArgumentType]
    try:
        left = task.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BadCheckpoint(f"{path}: {' '.join(str(error).split())}") from error
    beside = [n for n in (*left.missing_keys, *left.unexpected_keys) if not n.startswith("net.")]
    if strict and beside:
        raise BadCheckpoint(
            f"{path}: {len(beside)} tensors beside the network's differ, first {beside[0]}; "
            "strict=False leaves such out"
        )


def untaught(found: Described, given: Mapping[str, Any]) -> list[str]:
    """Names of the loss terms that a task was rebuilt without, for want of a teacher."""
    return [] if {"terms", "teacher"} & given.keys() else asks_teacher(found)


def check_kind(task: str, found: Described, path: Path | str) -> None:
    """Refuse a checkpoint of another task. Raises ValueError."""
    if found.task != task:
        right = CLASSES.get(found.task, found.task)
        raise ValueError(
            f"{path} is of {found.task}, not of {task}: {right}.load_from_checkpoint loads it"
        )


def check_foreign(
    kind: type,
    content: Mapping[str, Any],
    path: Path | str,
    hparams_file: Any,
    given: Mapping[str, Any],
) -> None:
    """Refuse to hand Lightning a checkpoint that it could only answer with a ``TypeError``.

    Args:
        kind: the class to load.
        content: of a checkpoint that does not say what network it is.
        path: of the checkpoint.
        hparams_file: Lightning's file of arguments, if any.
        given: arguments that were given.

    Raises:
        BadCheckpoint: it is not Lightning's, or arguments are missing; the message says which.
    """
    if "state_dict" not in content:
        raise BadCheckpoint(
            f"{path} is no checkpoint of Lightning and does not say what network it is: build that "
            "with bnnbench.build_backbone and load its weights"
        )
    known = {*content.get("hyper_parameters", {}), *given}
    missing = [
        name
        for name, each in signature(kind).parameters.items()
        if each.default is Parameter.empty and each.kind not in _VARIADIC and name not in known
    ]
    if missing and hparams_file is None:
        raise BadCheckpoint(
            f"{path} does not say what network it is: give {', '.join(f'{n}=' for n in missing)} "
            f"as {kind.__name__} takes them"
        )


def device_of(map_location: Any) -> torch.device:
    """The device that ``torch.load(..., map_location=)`` brings a tensor of the CPU to."""
    file = io.BytesIO()
    torch.save(torch.zeros(1), file)
    file.seek(0)
    return torch.load(file, map_location=map_location, weights_only=True).device
