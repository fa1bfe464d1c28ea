"""The code a number rests on: a hash of a run's method, losses and optimiser as they are written.

From the classes that a config names, every definition of this package that they reach is followed
by reading the files: names, base classes, imports (inside functions too). What is hashed is the
normalised text of these definitions, not where they stand: docstrings, comments, annotations,
aliases of imports, the order and the module of a definition do not count; a default value and a
constant do. A local variable that is called like a function counts as a use of it: more may be
followed than is used, never less.

Not followed is the frame that all methods share, ``GENERAL``: a change there belongs to no method
and would mark every result at once. A class of another package counts by its name alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bnnbench.records.definitions import find
from bnnbench.records.names import is_name
from bnnbench.records.normalise import normalised

PACKAGE = Path(__file__).resolve().parents[1]
GENERAL = ("layers", "blocks", "backbones", "tasks", "data", "records")

# Classes behind names in a config that are no ``_target_``; others of these names are PyTorch's.
NAMED: dict[str, dict[str, str]] = {
    "optimizer": {
        "extragradient": "bnnbench.optim.extragradient.Extragradient",
        "bayesbinn": "bnnbench.optim.bayesbinn.BayesBiNN",
        "wage": "bnnbench.optim.wage.WAGE",
    },
    "kind": {
        "squared_hinge": "bnnbench.losses.hinge.SquaredHinge",
        "sse": "bnnbench.losses.squared.SumOfSquares",
    },
    "nonlinearity": {
        "hardtanh": "bnnbench.quantizers.nonlinearities.Hardtanh",
        "rprelu": "bnnbench.quantizers.nonlinearities.RPReLU",
        "maxout": "bnnbench.quantizers.nonlinearities.Maxout",
        "quantized_rprelu": "bnnbench.quantizers.abbnn.QuantizedRPReLU",
    },
}
NAMED["stem_nonlinearity"] = NAMED["nonlinearity"]
DETECTION_LOSS = "bnnbench.losses.multibox.MultiBox"


def source_hash(config: Mapping[str, Any], package: Path = PACKAGE) -> str:
    """SHA-256 (hex) of the code behind a run's resolved config.

    It covers both sides and the output op of the quantizer, the nonlinearities, the task's loss and
    all its terms, the optimiser, and what the stages of the recipe put in their place. Files are
    read, nothing is imported; they are read once a process.

    Args:
        config: groups ``quantizer``, ``loss``, ``recipe``, ``backbone`` and ``dataset``; one that
            is missing covers nothing.
        package: the folder ``bnnbench`` of the checkout to look at. A class that has moved since
            the config was written is found by its name; one that is gone counts as missing, which
            no code has as its hash. A name of ``NAMED`` was PyTorch's before its class was written.

    Raises:
        KeyError: a config without a quantizer is none of a run.
    """
    if "quantizer" not in config:
        raise KeyError("the code of a run is that of its whole config: there is no quantizer in it")
    texts = {text for path in targets(config, package) for text in _texts(package, path)}
    return hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest()


def targets(config: Mapping[str, Any], package: Path = PACKAGE) -> set[str]:
    """Dotted paths of the classes of this package that a run's config chooses."""
    found = {
        path for key in ("quantizer", "loss", "recipe") for path in _named(config, key, package)
    }
    backbone = config.get("backbone") or {}
    for key in ("nonlinearity", "stem_nonlinearity"):
        found |= set(_named({key: backbone.get(key)}, key, package))
    if "interpolation" in (config.get("dataset") or {}):  # the rule of detectors' average precision
        found.add(DETECTION_LOSS)
    return found


def located(path: str, package: Path = PACKAGE) -> set[str]:
    """Dotted paths of what stands at ``path``, or, where nothing does, of all that has its name."""
    found = find(package, path)
    if found or not path.startswith("bnnbench."):
        return found
    name = path.rpartition(".")[2]
    pattern = re.compile(rf"^(class|def) {re.escape(name)}\b", re.MULTILINE)
    files = [file for file in package.rglob("*.py") if pattern.search(file.read_text())]
    modules = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    return {f"{module.removesuffix('.__init__')}.{name}" for module in modules}


@cache
def reached(path: str, package: Path = PACKAGE) -> frozenset[str]:
    """Dotted paths of all definitions that the one at ``path`` reaches, itself among them."""
    found: set[str] = set()
    waiting = located(path, package)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            uses = normalised(package, name).uses
            waiting |= {used for used in uses if used.split(".")[1] not in GENERAL}
    return frozenset(found)


@cache
def _texts(package: Path, path: str) -> frozenset[str]:
    paths = reached(path, package)
    if not paths:
        return frozenset({f"missing: {path}"})
    return frozenset(normalised(package, name).text for name in paths)


def _named(node: Any, key: str, package: Path) -> Iterator[str]:
    """The classes that the value of ``key`` in ``node`` names, at any depth."""
    value, last = node.get(key), key.rpartition(".")[2]
    if isinstance(value, Mapping):
        for inner in value:
            yield from _named(value, str(inner), package)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _named({key: entry}, key, package)
    elif last == "_target_" and str(value).startswith("bnnbench."):
        yield str(value)
    elif key in ("quantizer", "loss") and isinstance(value, str):  # a stage takes another option
        yield from _named({key: _option(package, key, value)}, key, package)
    elif (
        isinstance(value, str)
        and (known := NAMED.get(last, {}).get(value))
        and reached(known, package)
    ):
        yield known


@cache
def _option(package: Path, group: str, name: str) -> dict[str, Any]:
    """The yaml of a config group's option; one that is gone counts as a class that is missing."""
    for conf in (package / "conf", package.parents[1] / "conf"):
        file = conf / group / f"{name}.yaml"
        if is_name(name) and file.is_file():
            node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            assert isinstance(node, dict)
            return {str(key): value for key, value in node.items()}
    return {"_target_": f"bnnbench.conf.{group}.{name}"}
