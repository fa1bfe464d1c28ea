"""Weights from checkpoints: the suite's own, plain state dicts, and two published layouts.

Published CIFAR ResNets (akamaster/pytorch_resnet_cifar10; AdaBin's release, which adds the
``binary_a``, ``nonlinear`` and ``bn2`` keys) name the same tensors differently:

    module.                      dropped
    layerL.B.                    stages.(L-1).B.
    linear.                      fc.
    bn2. (outside the blocks)    head_norm.
    nonlinearC.pos_scale         actC.positive
    nonlinearC.neg_scale         actC.negative
    convC.binary_a.alpha_a       convC.activation_quantizer.alpha
    convC.binary_a.beta_a        convC.activation_quantizer.beta
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from bnnbench.records.signature import BadCheckpoint, is_finite, read_checkpoint

RENAMED = (
    (r"^module\.", ""),
    (r"^net\.", ""),
    (r"^layer(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"^linear\.", "fc."),
    (r"^bn2\.", "head_norm."),
    (r"nonlinear(\d)\.pos_scale", r"act\1.positive"),
    (r"nonlinear(\d)\.neg_scale", r"act\1.negative"),
    (r"binary_a\.(alpha|beta)_a$", r"activation_quantizer.\1"),
)
# What one method has and another has not: it may be missing when a run starts from another's.
METHOD_STATE = re.compile(r"(weight_quantizer|activation_quantizer|output|act\d?|head_norm)\.")


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The network's tensors in ``path`` under the suite's names.

    Raises:
        BadCheckpoint: no such file, a damaged one, one without weights, or with some that are no
            finite numbers.
    """
    content = read_checkpoint(path)
    state = content.get("state_dict", content)
    if not _is_state_dict(state):
        raise BadCheckpoint(f"{path} holds no state_dict")
    if any(key.startswith("net.") for key in state):  # a LightningModule also holds metrics
        state = {key: value for key, value in state.items() if key.startswith("net.")}
    renamed = {_renamed(key): value for key, value in state.items()}
    check_finite(renamed, str(path))
    for key in state:  # AdaBin's release: all its weights have the released code's form
        if key.endswith("binary_a.alpha_a"):
            renamed[_renamed(key).replace(".alpha", ".reference")] = torch.tensor(True)
    return renamed


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise BadCheckpoint, naming ``source`` and the first tensor, where one is not finite."""
    bad = [key for key, value in state.items() if not is_finite(value)]
    if bad:
        more = f" and {len(bad) - 1} more tensors hold" if len(bad) > 1 else " holds"
        raise BadCheckpoint(
            f"{source}: {bad[0]}{more} values that are no finite numbers; take another file"
        )


def _is_state_dict(state: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(state, dict)
        and len(state) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    )


def _renamed(key: str) -> str:
    for pattern, replacement in RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def load_weights(net: nn.Module, path: Path | str, strict: bool = True) -> None:
    """Load the tensors of ``path`` into ``net``.

    Args:
        net: the network.
        path: a checkpoint of the suite or of a published layout.
        strict: False lets the method's own state (quantizers, nonlinearities, head norm) differ:
            a binary network may start from a full-precision one. A detector may then start from a
            classifier, which becomes its body, or from a detector of other classes.

    Raises:
        BadCheckpoint: unreadable, or of another network; the message names the first differences.
    """
    state = read_state_dict(path)
    if not strict and any(name == "backbone.body" for name, _ in net.named_modules()):
        net, state = _detector_start(net, state)
    state = _with_schedules(net, state)
    check_state(net, state, f"{path} is a checkpoint", strict)
    try:
        net.load_state_dict(state, strict=False)
    except ValueError as error:
        raise BadCheckpoint(f"{path}: {error}") from error


def check_start(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise BadCheckpoint where ``load_weights(net, ..., strict=False)`` would for ``state``."""
    check_state(net, _with_schedules(net, state), source, strict=False)


def _with_schedules(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state``, and of ``net`` what published layouts and other methods do not store."""
    own = net.state_dict().items()
    unstored = {k: v for k, v in own if "schedule." in k or k.endswith("num_batches_tracked")}
    return unstored | dict(state)


def _detector_start(
    net: nn.Module, state: dict[str, Tensor]
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The part of a detector that ``state`` is for, and what fits of it."""
    if not any(key.startswith("backbone.") for key in state):
        body = {key: v for key, v in state.items() if not key.startswith(("fc.", "head_norm."))}
        return net.get_submodule("backbone.body"), body
    own = net.state_dict()
    heads = [key for key in state if key.startswith("head.classification.")]
    if any(key in own and own[key].shape != state[key].shape for key in heads):
        rank_zero_warn("the checkpoint is of other classes: the classification heads start anew")
        state |= {key: own[key] for key in heads if key in own}
    return net, state


def check_state(net: nn.Module, state: Mapping[str, Tensor], source: str, strict: bool) -> None:
    """Refuse tensors of another network; arguments as in ``load_weights``.

    Raises:
        BadCheckpoint: ``source`` ("<file> is") starts the message, the first differences end it.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [k for k in own if k in state and own[k].shape != state[k].shape]
    if not strict:
        missing = [key for key in missing if not METHOD_STATE.search(key)]
        unexpected = [key for key in unexpected if not METHOD_STATE.search(key)]
    differences = {"missing": missing, "unexpected": unexpected, "other shape": reshaped}
    if any(differences.values()):
        found = "; ".join(
            f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in differences.items() if keys
        )
        raise BadCheckpoint(f"{source} of another network or structure: {found}")
