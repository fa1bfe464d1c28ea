"""The network's tensors in what a checkpoint holds, whoever wrote it, and under which prefixes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from bnnbench.records.signature import BadCheckpoint, is_finite

# Entries that hold a network's weights, the likeliest first; moving averages where nothing else is.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
OPTIMISERS = ("optimizer", "optimizer_state_dict", "optimizer_states", "param_groups")
# What wraps a network in another module: DataParallel, a LightningModule, a detector.
PREFIXES = ("module", "model", "net", "backbone")
COMPILED = "_orig_mod."
DEEPEST = 4


def find_state(
    content: Mapping[str, Any], source: str, averages: bool = False
) -> dict[str, Tensor]:
    """The tensors of a network under the names that ``content`` has for them.

    Args:
        content: what was read.
        source: names the file in messages.
        averages: take a moving average before the weights themselves, as timm does.

    Raises:
        BadCheckpoint: there are none, or those of several networks.
    """
    order = (*AVERAGES, *CONTAINERS) if averages else (*CONTAINERS, *AVERAGES)
    found = _state(content, order, DEEPEST)
    if found is None:
        raise BadCheckpoint(f"{source} holds no state_dict{_instead(content)}")
    return found


def _state(node: Any, order: Collection[str], depth: int) -> dict[str, Tensor] | None:
    """The state of the first entry of ``node`` that has one, or ``node`` itself."""
    if not isinstance(node, Mapping) or not all(isinstance(key, str) for key in node):
        return None
    tensors = {key: value for key, value in node.items() if isinstance(value, Tensor)}
    if tensors and len(tensors) == len(node) and tensors.keys().isdisjoint(order):
        return tensors
    for key in order:
        if depth and (found := _state(node.get(key), order, depth - 1)) is not None:
            return found
    return tensors if any("." in key for key in tensors) else None


def _instead(content: Mapping[str, Any]) -> str:
    """What a checkpoint without weights holds, and what to do."""
    if any(key in content for key in OPTIMISERS):
        return " but an optimiser's state: take the file that has the network's weights"
    names = ", ".join(map(str, list(content)[:5]))
    return f"{f', only {names}' if names else ''}: take the file that has the network's weights"


def without_prefixes(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """``state`` without what wrapped the network when it was saved.

    Where a wrapper held other things as well, metrics or a teacher, they are left out.

    Args:
        state: tensors by their names in the file.
        own: names of the network; a prefix that it has itself stays.
    """
    bare = {key.replace(COMPILED, ""): value for key, value in state.items()}
    heads = {name.partition(".")[0] for name in own}
    while True:
        found = {key.partition(".")[0] for key in bare if "." in key}
        prefix = next((word for word in PREFIXES if word in found and word not in heads), None)
        if prefix is None:
            doubled = [
                word for word in PREFIXES if all(k.startswith(f"{word}.{word}.") for k in bare)
            ]
            if not doubled or not bare:
                return bare
            prefix = doubled[0]
        start = f"{prefix}."
        bare = {k.removeprefix(start): v for k, v in bare.items() if k.startswith(start)}


def own_prefix(own: Collection[str]) -> str:
    """``model.`` of a network whose names all begin with it, as timm's do here, or nothing."""
    heads = {name.partition(".")[0] for name in own}
    return f"{heads.pop()}." if len(heads) == 1 and heads <= set(PREFIXES) else ""


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise BadCheckpoint, naming ``source`` and the first tensor, where one is not finite."""
    bad = [key for key, value in state.items() if not is_finite(value)]
    if bad:
        more = f" and {len(bad) - 1} more tensors hold" if len(bad) > 1 else " holds"
        raise BadCheckpoint(
            f"{source}: {bad[0]}{more} values that are no finite numbers; take another file"
        )
