"""Weights from checkpoints into networks: the suite's own, and others' through maps of their names.

What a file holds is found under the usual entries and prefixes (``states``), its names become the
suite's by the map that the user names or else by the ready map that such names tell of
(``checkpoint_maps``), and then it has to be the network's, tensor by tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from bnnbench.records.checkpoint_maps import CheckpointMap, load_map, map_for, ready_maps
from bnnbench.records.signature import BadCheckpoint, read_checkpoint, signature_of
from bnnbench.records.states import check_finite, find_state, own_prefix, without_prefixes

# What one method has and another has not: it may be missing when a run starts from another's.
METHOD_STATE = re.compile(r"(weight_quantizer|activation_quantizer|output|act\d?|head_norm)\.")
# What only training reads, beside schedules: signs and flips of OvSW and ReBNN, last gradient and
# backtracking of RBONN, projection and penalty of ADMM, variances of BBB, noise of FDA. A side's
# training_only is more than that: RBNN's angles make the code.
TRAINING_STATE = re.compile(r"weight_quantizer\.(signs|flips|previous|u|g|rho)$|\.noise\.")
CLASSIFIER = ("fc.weight", "fc.bias")
SHOWN = 3  # differences that a message names


@dataclass(frozen=True)
class Normalisation:
    """How the images were normalised that weights were trained on, and who says so."""

    mean: Sequence[float]
    std: Sequence[float]
    source: str


def read_state_dict(path: Path | str, averages: bool = False) -> dict[str, Tensor]:
    """The network's tensors in ``path`` under the file's own names; see ``states.find_state``.

    Raises:
        BadCheckpoint: no such file, a damaged one, one without weights, or with some that are no
            finite numbers.
    """
    state = find_state(read_checkpoint(path), str(path), averages)
    check_finite(state, str(path))
    return state


def load_weights(
    net: nn.Module,
    path: Path | str,
    strict: bool = True,
    named: str | None = None,
    averages: bool = False,
) -> Normalisation | None:
    """Load the tensors of ``path`` into ``net``.

    Args:
        net: the network.
        path: a checkpoint of the suite or of somebody else.
        strict: False lets the method's own state (quantizers, nonlinearities, head norm) differ:
            a binary network may start from a full-precision one. A detector may then start from a
            classifier, which becomes its body, or from a detector of other classes.
        named: a map of names; None: the ready map that the checkpoint's names tell of, if any.
        averages: take a moving average of the weights where the file has one.

    Returns:
        How images were normalised for them, where checkpoint or map say so.

    Raises:
        BadCheckpoint: unreadable, or of another network; the message names the first differences.
        BadMap: a map that is none, or that does not fit.
    """
    content = read_checkpoint(path)
    found = find_state(content, str(path), averages)
    check_finite(found, str(path))
    state, maps = _translated(found, net.state_dict(), named)
    signature = signature_of(content)
    if not strict and any(name == "backbone.body" for name, _ in net.named_modules()):
        net, state = _detector_start(net, state)
    dropped = [name for name in net.state_dict() if any(each.drops(name) for each in maps)]
    state = _with_unstored(net, state, () if strict else dropped)
    used = "".join(f", read with checkpoint_map={each.name}," for each in maps)
    advice = "" if signature else _advice(named)
    check_state(net, state, f"{path}{used} is a checkpoint", strict, advice)
    try:
        net.load_state_dict(state, strict=False)
    except ValueError as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    if signature is not None:
        return Normalisation(signature.mean, signature.std, "was trained on images with")
    known = [each for each in maps if each.mean and each.std]
    says = "has names of checkpoint_map={}, whose authors normalise with"
    return Normalisation(known[0].mean, known[0].std, says.format(known[0].name)) if known else None


def warn_of_normalisation(
    key: str, known: Normalisation | None, mean: Sequence[float] | str, std: Sequence[float] | str
) -> None:
    """Say in a line where weights saw images that were normalised otherwise than they will be.

    Args:
        key: the key and file that weights came from, ``init_from=<file>``.
        known: what ``load_weights`` returned.
        mean, std: of the data set, a number a channel; ``auto`` of one that has yet to be measured.
    """
    if known is None or isinstance(mean, str) or isinstance(std, str):
        return
    if len(known.mean) != len(mean):
        return
    pairs = [*zip(known.mean, mean, strict=True), *zip(known.std, std, strict=True)]
    if any(abs(theirs - own) > 1e-3 for theirs, own in pairs):
        theirs = [",".join(f"{number:g}" for number in side) for side in (known.mean, known.std)]
        rank_zero_warn(
            f"{key} {known.source} mean {theirs[0]} and std {theirs[1]}, this data set has others: "
            f'for theirs add "dataset.mean=[{theirs[0]}]" "dataset.std=[{theirs[1]}]"'
        )


def check_start(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise BadCheckpoint where ``load_weights(net, ..., strict=False)`` would for ``state``."""
    check_state(net, _with_unstored(net, state), source, strict=False)


def _translated(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], named: str | None
) -> tuple[dict[str, Tensor], list[CheckpointMap]]:
    """``state`` under the network's names, and the maps that it was read with.

    A map that renames nothing leaves names to the ready one that fits.
    """
    bare = without_prefixes(state, own)
    prefix = own_prefix(own)
    if prefix and not any(key.startswith(prefix) for key in bare):
        inside = {key.removeprefix(prefix): tensor for key, tensor in own.items()}
        found, maps = _translated(bare, inside, named)
        return {f"{prefix}{key}": tensor for key, tensor in found.items()}, maps
    maps = [load_map(named)] if named is not None else []
    if not any(each.rules for each in maps):
        maps += [fitting] if (fitting := map_for(list(bare), list(own))) else []
    for each in maps:
        bare = each.apply(bare, own)
    return bare, maps


def _with_unstored(
    net: nn.Module, state: Mapping[str, Tensor], dropped: Collection[str] = ()
) -> dict[str, Tensor]:
    """``state``, and of ``net`` what others need not store, or what is to start anew."""
    own = net.state_dict()
    unstored = {
        key: tensor
        for key, tensor in own.items()
        if "schedule." in key
        or key.endswith("num_batches_tracked")
        or TRAINING_STATE.search(key)
        or key in dropped
    }
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


def check_state(
    net: nn.Module, state: Mapping[str, Tensor], source: str, strict: bool, advice: str = ""
) -> None:
    """Refuse tensors of another network; arguments as in ``load_weights``.

    Raises:
        BadCheckpoint: ``source`` ("<file> is") starts the message, the first differences and the
            ``advice`` end it.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [k for k in own if k in state and own[k].shape != state[k].shape]
    if not strict:
        missing = [key for key in missing if not METHOD_STATE.search(key)]
        unexpected = [key for key in unexpected if not METHOD_STATE.search(key)]
    differences = {"missing": missing, "unexpected": unexpected, "other shape": reshaped}
    if not any(differences.values()):
        return
    found = "; ".join(
        f"{len(keys)} {kind}, first {keys[0]}{_rest(kind, keys, missing)}"
        for kind, keys in differences.items()
        if keys
    )
    if not unexpected:  # no name that a map could change
        advice = ""
    if not missing and not unexpected and set(reshaped) <= set(CLASSIFIER):
        advice = _of_classes(len(state[reshaped[0]]), len(own[reshaped[0]]), strict)
    raise BadCheckpoint(f"{source} of another network or structure: {found}{advice}")


def _rest(kind: str, keys: Sequence[str], missing: Sequence[str]) -> str:
    """The next names of a difference and, of tensors that nothing took, the likeliest place."""
    if kind != "unexpected":
        return ""
    near = [get_close_matches(key, missing, n=1, cutoff=0.5) for key in keys[:SHOWN]]
    told = [f"{key} (nearest {n[0]})" if n else key for key, n in zip(keys, near, strict=False)]
    first = told[0].removeprefix(keys[0])
    return ", ".join([first, *told[1:]])


def _of_classes(theirs: int, own: int, strict: bool) -> str:
    remedy = (
        f"evaluate it on the data set of {theirs} classes that it was trained on"
        if strict
        else "start from all but the classifier with checkpoint_map=body"
    )
    return f"; it knows {theirs} classes, the network {own}: {remedy}"


def _advice(named: str | None) -> str:
    if named is not None:
        return f"; change checkpoint_map={named}, or the network's options, so that names agree"
    maps = ", ".join(name for name in ready_maps() if name != "body")
    return f"; where its names are others', name a map: checkpoint_map={maps} or <file>.yaml"
