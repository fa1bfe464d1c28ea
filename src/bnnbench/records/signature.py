"""What a checkpoint says of itself: whose it is, and a checksum of every part.

A checkpoint of a run holds, under ``bnnbench``, the run's name, fingerprint and stage, its full
config, the stamp of its data, class names and normalisation, so that it can be evaluated, taught
from and continued without being told again what it is, and never passes for another run's.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from bnnbench.backbones.stems import identified
from bnnbench.records.fingerprint import canonical, content_hash, flattened
from bnnbench.records.formats import read_content, told
from bnnbench.records.names import absent

KEY = "bnnbench"
GROUPS = ("quantizer", "loss", "backbone", "dataset", "recipe", "teacher", "trainer")
ADVICE = "choose another folder, start from these weights with init_from=<file>, or set force=true"


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be read, or that belongs to another network or run."""


class DamagedCheckpoint(BadCheckpoint):
    """One that is no longer, or never was, what a run can go on from, whosever it is."""


@dataclass(frozen=True)
class Signature:
    """Whose checkpoint it is.

    Attributes:
        name: the run's.
        fingerprint: the run's or, in a run of several stages, this stage's.
        stage: None for the only one.
        config: all groups of the config, resolved.
        data_stamp: content of the data, None where unknown.
        classes: names in the order of the labels.
        mean, std: per channel, of pixels scaled to [0, 1].
    """

    name: str
    fingerprint: str
    stage: str | None
    config: dict[str, Any]
    data_stamp: str | None
    classes: list[str]
    mean: list[float]
    std: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Plain data that ``torch.load(weights_only=True)`` takes."""
        return asdict(self)


def full_config(cfg: DictConfig) -> dict[str, Any]:
    """All groups of a run's config, resolved, without folders of this machine."""
    groups = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in GROUPS if key in cfg}
    for group in groups.values():
        assert isinstance(group, dict)
        group.pop("data_dir", None)
    if isinstance(backbone := groups.get("backbone"), dict):
        groups["backbone"] = identified(backbone)  # pyright: ignore[reportArgumentType]
    start = {} if cfg.get("ckpt_path") is None else {"ckpt_path": _hash_of(cfg)}
    return groups | start | {"seed": cfg.seed, "channels_last": bool(cfg.channels_last)}


def _hash_of(cfg: DictConfig) -> str:
    """What a continued run began with, by its content."""
    return content_hash("ckpt_path", cfg.ckpt_path)


def sign(checkpoint: dict[str, Any], signature: Signature | None) -> None:
    """Add ``signature`` and the checksums to a checkpoint that is otherwise complete."""
    checkpoint.pop(KEY, None)
    checksums = _checksums(checkpoint)
    told = signature.as_dict() | {"torch": str(torch.__version__)} if signature else {}
    checkpoint[KEY] = told | {"checksums": checksums}


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; its tensors are what they were when it was written.

    Raises:
        BadCheckpoint: no such file, or one that may not be read.
        DamagedCheckpoint: a damaged one, or one that is no dictionary.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadCheckpoint(f"there is no checkpoint at {path}: {absent(path)}")
    try:
        content = read_content(path)
    except Exception as error:
        if _is_of_the_machine(error):
            raise BadCheckpoint(f"{path} cannot be read: {error}") from error
        reason = told(path, error)
        raise DamagedCheckpoint(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict):
        what = type(content).__name__
        raise DamagedCheckpoint(f"{path} holds no state_dict but a {what}; take another file")
    _verify(content, path)
    return content


def _is_of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of what is in a file: a disk that fails, no memory, no right.

    torch asks for a place before the start of a truncated file, which is ``EINVAL``.
    """
    failed = isinstance(error, OSError) and error.errno != errno.EINVAL
    return failed or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def signature_of(content: Mapping[str, Any]) -> Signature | None:
    """Whose checkpoint ``content`` is; None of one that the suite did not write."""
    signed = content.get(KEY)
    if not isinstance(signed, Mapping) or not signed.keys() - {"checksums"}:
        return None
    names = {field.name for field in fields(Signature)}
    if missing := sorted(names - signed.keys()):
        raise DamagedCheckpoint(f"the checkpoint's signature is damaged: it lacks {missing}")
    return Signature(**{name: signed[name] for name in names})


def other_torch(content: Mapping[str, Any]) -> str | None:
    """The version of torch that wrote a checkpoint where it is not this one; None where it is."""
    found = (content.get(KEY) or {}).get("torch")
    return None if found in (None, str(torch.__version__)) else str(found)


def check_signature(path: Path | str, own: Signature) -> dict[str, Any]:
    """The content of a checkpoint to go on from, which has to be ``own``'s.

    Raises:
        BadCheckpoint: without a signature, of another run or of other data; the message says in
            what they differ.
        DamagedCheckpoint: damaged, or with weights that are no finite numbers.
    """
    content = read_checkpoint(path)
    found = signature_of(content)
    if found is None:
        raise BadCheckpoint(f"{path} does not say which run it belongs to: {ADVICE}")
    if (found.fingerprint, found.stage) != (own.fingerprint, own.stage):
        different = "; ".join(differences(found.config, own.config)) or "another stage"
        raise BadCheckpoint(
            f"{path} belongs to another run, {found.name}, not to {own.name} "
            f"({different}): {ADVICE}"
        )
    if own.data_stamp and found.data_stamp not in (None, own.data_stamp):
        raise BadCheckpoint(
            f"{path} was trained on other data of the same name ({found.data_stamp[:15]}, now "
            f"{own.data_stamp[:15]}): {ADVICE}"
        )
    if (place := not_finite(content)) is not None:
        raise DamagedCheckpoint(f"{path}: {place} holds values that are no finite numbers")
    return content


def not_finite(content: Mapping[str, Any]) -> str | None:
    """Where a checkpoint's weights, or its optimiser's state, are no finite numbers; None: nowhere.

    Other parts may well be infinite: the best score of a run that has none yet.
    """
    parts = {key: content[key] for key in ("state_dict", "optimizer_states") if key in content}
    return next((place[1:] for place, leaf in _leaves(parts, "", []) if not is_finite(leaf)), None)


def is_finite(leaf: object) -> bool:
    """Whether ``leaf`` is no tensor of floats, or one of finite numbers alone."""
    if not isinstance(leaf, Tensor):
        return True
    # A sum is a fifth of the work, and finite only where every element is; large ones overflow.
    return bool(torch.isfinite(leaf.sum())) or bool(torch.isfinite(leaf).all())


def check_belongs(path: Path | str, fingerprint: str) -> None:
    """Refuse a checkpoint that is not of the run, or stage, whose record lies beside it.

    Raises:
        BadCheckpoint: damaged, or of another run; of one without a signature it only warns.
    """
    found = signature_of(read_checkpoint(path))
    if found is None:
        rank_zero_warn(f"{path} does not say which run it belongs to; it is taken for its folder's")
    elif found.fingerprint != fingerprint:
        raise BadCheckpoint(
            f"{path} belongs to another run, {found.name}, not to the one whose result lies beside "
            "it: restore its own file, or name that run's folder"
        )


def differences(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """``key=theirs, here own`` of the keys that count, the first few."""
    left, right = ({**flattened(canonical(c)), **_processes(c)} for c in (theirs, own))
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    for key in sorted(keys, key=lambda key: (not key.endswith(".name"), key))[:3]:
        yield f"{key}={left.get(key)}, here {right.get(key)}"


def _processes(config: Mapping[str, Any]) -> dict[str, Any]:
    """What their number follows from, which counts by itself."""
    trainer = config.get("trainer") or {}
    return {f"trainer.{key}": trainer.get(key, 1) for key in ("devices", "num_nodes")}


def _verify(content: dict[str, Any], path: Path) -> None:
    own = content.get(KEY)
    if own is None:
        return
    signed = own.get("checksums") if isinstance(own, Mapping) else None
    if not isinstance(signed, Mapping):
        raise DamagedCheckpoint(f"{path} is damaged: its checksums are gone; take another file")
    found = _checksums({key: value for key, value in content.items() if key != KEY})
    damaged = [place for place in {**signed, **found} if signed.get(place) != found.get(place)]
    if damaged:
        raise DamagedCheckpoint(
            f"{path} is damaged: {len(damaged)} parts are not what was written, the first is "
            f"{damaged[0]}; delete it and go on from another, or set force=true"
        )
    _check_whole(own, path)


def _check_whole(signed: Mapping[str, Any], path: Path) -> None:
    """Refuse a signature of other parts than ``Signature``'s; one of none says nothing."""
    names = [field.name for field in fields(Signature)]
    lacks = [name for name in names if name not in signed]
    if "config" not in lacks and not isinstance(signed["config"], dict):
        lacks = ["config"]
    if lacks and signed.keys() - {"checksums"}:
        raise DamagedCheckpoint(
            f"{path} does not say what network it is: it was written without {', '.join(lacks)}; "
            "save its state_dict to a file of its own, and name the network that it is of: "
            "quantizer=... backbone=... dataset=..."
        )


def _checksums(content: Mapping[str, Any]) -> dict[str, int]:
    """One a tensor by its place, and one for all that is no tensor: epochs, history, rates."""
    leaves = _leaves(content, "", [])
    found = {place: _checksum(leaf) for place, leaf in leaves if isinstance(leaf, Tensor)}
    rest = "".join(f"{place}={leaf!r}" for place, leaf in leaves if not isinstance(leaf, Tensor))
    return found | {"what is no tensor": zlib.crc32(rest.encode())}


def _leaves(node: Any, place: str, found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """``found`` and all that lies below ``node``, by its place: ten thousand numbers in a save."""
    if isinstance(node, dict):  # ten times as quick to ask as a Mapping
        for key, value in node.items():
            _leaves(value, f"{place}/{key}", found)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _leaves(value, f"{place}/{number}", found)
    else:
        found.append((place, node))
    return found


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes: rot is not an adversary, and a check costs milliseconds."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data) if flat.numel() else 0
