"""Maps from others' names of tensors to the suite's: ``checkpoint_map=<name or yaml file>``.

Ready maps lie in conf/checkpoint_maps. A map is a yaml file of

    names:      patterns, each replaced in every name as by ``re.sub``, one after the other; ``{1}``
                is what the first group matched, and ``{1-1}``, ``{2//2}``, ``{2%2+1}`` count with
                it. In the place of a name may stand ``{to, dims, reshape, permute, sign}``: only
                tensors of ``dims`` axes, and what is done to them: ``reshape`` a list of sizes or
                ``network`` (the tensor of that name there), ``permute`` an order of the axes,
                ``sign: -1``.
    drop:       patterns of tensors that are left out; in ``init_from`` what the network has of
                such names starts anew.
    add:        patterns of the network's names with the number that a tensor is filled with which
                the checkpoint does not have.
    detect:     a pattern that tells such a checkpoint from others; of ready maps alone.
    mean, std:  how images are normalised that the weights were trained on.

Imports lightly: an identity counts the content of a map.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoint_maps"
KEYS = ("names", "drop", "add", "detect", "mean", "std")
ACTS = ("dims", "join", "reshape", "permute", "sign")
COUNTED = re.compile(r"\{(\d)(?:(//|%)(\d+))?(?:([+-])(\d+))?\}")


class BadMap(ValueError):
    """A map that is none, or that does not fit the tensors it is used on."""


@dataclass(frozen=True)
class Rule:
    """One pattern of ``names``: what it becomes, and what is done to the tensors it matches."""

    pattern: re.Pattern[str]
    to: str
    dims: int | None = None
    join: int | None = None
    reshape: tuple[int, ...] | str | None = None
    permute: tuple[int, ...] | None = None
    sign: int = 1

    def renamed(self, name: str) -> str:
        """``name`` with each match replaced."""
        return self.pattern.sub(lambda match: _counted(self.to, match), name)

    def acted(self, tensor: Tensor, own: Tensor | None) -> Tensor:
        """``tensor`` in the network's form. Raises RuntimeError where the sizes do not allow it."""
        if self.permute is not None:
            tensor = tensor.permute(self.permute)
        if self.reshape == "network":
            tensor = tensor if own is None else tensor.reshape(own.shape)
        elif isinstance(self.reshape, tuple):
            tensor = tensor.reshape(self.reshape)
        return tensor if self.sign == 1 else -tensor


@dataclass(frozen=True)
class CheckpointMap:
    """A map, read and checked; ``name`` is what messages call it."""

    name: str
    rules: tuple[Rule, ...]
    drop: tuple[re.Pattern[str], ...]
    add: tuple[tuple[re.Pattern[str], float], ...]
    detect: re.Pattern[str] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a checkpoint of such names is one of those that the map is for."""
        return self.detect is not None and any(map(self.detect.search, names))

    def drops(self, name: str) -> bool:
        """Whether tensors of this name are left out."""
        return any(pattern.search(name) for pattern in self.drop)

    def apply(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of ``state`` under the names, and in the form, of the network's ``own``.

        Raises:
            BadMap: two tensors get one name, or one cannot be brought into its form.
        """
        taken: dict[str, dict[int | None, str]] = {}  # by name, the tensors that it takes, in place
        rules: dict[str, list[Rule]] = {}
        for key, tensor in state.items():
            if self.drops(key):
                continue
            name, acting = self._named(key, tensor)
            place = next((rule.join for rule in acting if rule.join is not None), None)
            parts = taken.setdefault(name, {})
            if place in parts or (parts and None in (place, *parts)):
                other = next(iter(parts.values()))
                raise BadMap(f"checkpoint_map={self.name}: {other} and {key} become {name}")
            parts[place], rules[name] = key, acting
        found = {
            name: self._acted(state, parts, rules[name], own.get(name))
            for name, parts in taken.items()
        }
        for name in (name for name in own if name not in found):
            for pattern, number in self.add:
                if pattern.search(name):
                    found[name] = own[name].new_full(own[name].shape, number)
        return found

    def _named(self, key: str, tensor: Tensor) -> tuple[str, list[Rule]]:
        name, acting = key, []
        for rule in self.rules:
            if rule.dims in (None, tensor.dim()) and rule.pattern.search(name):
                name = rule.renamed(name)
                acting.append(rule)
        return name, acting

    def _acted(
        self,
        state: Mapping[str, Tensor],
        parts: Mapping[int | None, str],
        rules: Sequence[Rule],
        own: Tensor | None,
    ) -> Tensor:
        """The tensor of one name, of its ``parts`` by their places."""
        key, *others = (parts[place] for place in sorted(parts, key=lambda n: n or 0))
        tensor = state[key]
        if others:
            import torch

            tensor = torch.cat([tensor, *(state[other] for other in others)])
        for rule in rules:
            try:
                tensor = rule.acted(tensor, own)
            except RuntimeError as error:
                raise BadMap(
                    f"checkpoint_map={self.name}: {key} of shape {tuple(tensor.shape)}, by the "
                    f"pattern {rule.pattern.pattern!r}: {str(error).splitlines()[0]}"
                ) from error
        return tensor


def ready_maps() -> list[str]:
    """Names of the maps that come with the suite, in the order in which they are tried."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_map(named: str) -> CheckpointMap:
    """The map of a name or a yaml file.

    Raises:
        FileNotFoundError: there is none.
        BadMap: it is no map; the message names the file, the key and what to give.
    """
    return _parsed(named, map_content(named))


def map_for(names: Sequence[str], own: Sequence[str]) -> CheckpointMap | None:
    """The ready map that a checkpoint of these ``names`` needs for a network of ``own`` names."""
    if set(names) <= set(own):
        return None
    maps = (load_map(name) for name in ready_maps())
    fitting = [found for found in maps if found.fits(names) and not found.fits(own)]
    return max(fitting, key=lambda found: len(found.rules), default=None)


def map_hash(named: str) -> str:
    """SHA-256 (hex) of what a map does, whatever it is called. Raises as ``load_map``."""
    load_map(named)
    acting = {key: map_content(named).get(key) for key in ("names", "drop", "add")}
    return hashlib.sha256(json.dumps(acting).encode()).hexdigest()


def map_content(named: str) -> dict[str, Any]:
    """The yaml of a map as it stands. Raises as ``load_map``."""
    path = Path(named).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = _folder() / f"{named}.yaml"
        if named not in ready_maps():
            near = get_close_matches(named, ready_maps(), n=1)
            raise FileNotFoundError(
                f"checkpoint_map={named}: there is no such map{f', {near[0]} is' if near else ''}; "
                f"choose one of {', '.join(ready_maps())}, or give the path of a yaml file"
            )
    elif not path.is_file():
        raise FileNotFoundError(f"checkpoint_map={named}: there is no such file")
    return _read(named, str(path.resolve()), path.stat().st_mtime_ns)


@cache
def _read(named: str, path: str, changed: int) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise BadMap(f"checkpoint_map={named}: it is no yaml: {line}") from error
    if not isinstance(content, dict) or not content:
        raise BadMap(f"checkpoint_map={named}: a map is a yaml file with {', '.join(KEYS)}")
    return content


def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    bundled = package / "conf"
    return (bundled if bundled.is_dir() else package.parents[1] / "conf") / FOLDER


def _parsed(named: str, content: Mapping[str, Any]) -> CheckpointMap:
    source = f"checkpoint_map={named}"
    _check_keys(f"{source}:", content, KEYS)
    for key, kind, advice in (
        ("names", dict, "a mapping of patterns to names"),
        ("add", dict, "a mapping of patterns to numbers"),
        ("drop", list, "a list of patterns"),
        ("mean", list, "a list of numbers, one a channel"),
        ("std", list, "a list of numbers, one a channel"),
    ):
        value: Any = content.get(key) or kind()
        numbers = () if key in ("names", "drop") else value
        numbers = numbers.values() if isinstance(numbers, dict) else numbers
        if not isinstance(value, kind) or not all(isinstance(n, int | float) for n in numbers):
            raise BadMap(f"{source}: {key}={value!r}: give {advice}")
    names, add = content.get("names") or {}, content.get("add") or {}
    detect = content.get("detect")
    return CheckpointMap(
        name=named,
        rules=tuple(_rule(source, *item) for item in names.items()),
        drop=tuple(_pattern(f"{source}: drop", text) for text in content.get("drop") or ()),
        add=tuple((_pattern(f"{source}: add", text), number) for text, number in add.items()),
        detect=None if detect is None else _pattern(f"{source}: detect", detect),
        mean=tuple(content.get("mean") or ()),
        std=tuple(content.get("std") or ()),
    )


def _rule(source: str, text: object, node: object) -> Rule:
    place = f"{source}: names"
    pattern = _pattern(place, text)
    node = {"to": node} if isinstance(node, str) else node
    if not isinstance(node, dict) or not isinstance(node.get("to"), str):
        raise BadMap(f"{place} {text!r}: give a name, or {{to: <name>, {', '.join(ACTS)}}}")
    _check_keys(f"{place} {text!r}:", node, ("to", *ACTS))
    for group in (int(found[1]) for found in COUNTED.finditer(node["to"])):
        if group > pattern.groups:
            raise BadMap(f"{place} {text!r}: {{{group}}} of {node['to']!r} is no group of it")
    if left := re.search(r"\{[^}]*\}?", COUNTED.sub("", node["to"])):
        raise BadMap(
            f"{place} {text!r}: {left[0]!r} of {node['to']!r} is none of {{1}}, {{1-1}}, {{1+1}}, "
            "{1//2}, {1%2} and {1%2+1}"
        )
    return Rule(pattern, node["to"], **_acts(f"{place} {text!r}", node))


def _acts(place: str, node: Mapping[str, Any]) -> dict[str, Any]:
    acts = {key: node[key] for key in ACTS if key in node}
    fine = {
        "dims": lambda n: isinstance(n, int) and n >= 0,
        "join": lambda n: type(n) is int and n >= 1,
        "reshape": lambda n: n == "network" or _whole(n),
        "permute": lambda n: _whole(n) and sorted(n) == list(range(len(n))),
        "sign": lambda n: n in (1, -1),
    }
    advice = {
        "dims": "a number of axes",
        "join": "a place, 1 or more",
        "reshape": "network, or a list of sizes such as [-1]",
        "permute": "an order of the axes such as [1, 0]",
        "sign": "1 or -1",
    }
    for key, value in acts.items():
        if not fine[key](value):
            raise BadMap(f"{place}: {key}={value!r}: give {advice[key]}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in acts.items()}


def _whole(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)


def _check_keys(place: str, node: Mapping[str, Any], valid: Sequence[str]) -> None:
    for key in (str(key) for key in node if key not in valid):
        near = get_close_matches(key, valid, n=1)
        also = f", {near[0]} is" if near else ""
        raise BadMap(f"{place} {key} is no key of a map{also}; choose among {', '.join(valid)}")


def _pattern(place: str, text: object) -> re.Pattern[str]:
    try:
        return re.compile(str(text))
    except re.error as error:
        raise BadMap(f"{place}: {text!r} is no pattern: {error}") from error


def _counted(to: str, match: re.Match[str]) -> str:
    """``to`` with what was matched in the place of ``{1}``, and counted with where it says so."""

    def one(place: re.Match[str]) -> str:
        text = match[int(place[1])] or ""
        if place[2] is None and place[4] is None:
            return text
        number = int(text)
        if place[2]:
            number = number // int(place[3]) if place[2] == "//" else number % int(place[3])
        return str(number + int(f"{place[4]}{place[5]}") if place[4] else number)

    return COUNTED.sub(one, to)
