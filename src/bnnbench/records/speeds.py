"""The form of a bench file: what ``bnnbench bench`` writes and reports read; without torch.

Every list of three numbers is a lower quartile, a median and an upper quartile over rounds in which
all contenders ran in turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA = 1
Number = Annotated[float, Field(allow_inf_nan=False)]
Quartiles = Annotated[list[Number], Field(min_length=3, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Machine(_Part):
    """What it was measured on."""

    cpu: str
    flags: list[str]
    cores: int
    kernel: str
    load: float | None


class Subject(_Part):
    """A network that was timed; ``work`` is None where it is not packed."""

    network: str
    method: str
    backbone: str
    image: list[int]
    quantizer: dict[str, Any]
    structure: dict[str, Any]
    bits: dict[str, int]
    operations: dict[str, Any]
    bytes: int
    work: str | None


class Timing(_Part):
    """One contender in one setting; ratios are its milliseconds' part of the other's, by round."""

    network: str
    method: str
    way: str
    batch: int
    threads: int
    rounds: int
    ms: Quartiles
    best_float: str | None = None
    x_float: Quartiles | None = None
    x_int8: Quartiles | None = None
    x_simulation: Quartiles | None = None


class Left(_Part):
    """A contender that was not timed, and why."""

    network: str
    way: str
    batch: int
    why: str


class Speeds(_Part):
    """A bench file."""

    version: Literal[1] = Field(alias="schema")
    command: str
    date: str
    machine: Machine
    versions: dict[str, str]
    git: dict[str, Any]
    subjects: list[Subject]
    timings: list[Timing]
    left_out: list[Left]
    limits: dict[str, Number]
    layers: list[dict[str, Any]]


def checked(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``content`` as it is, if it is a bench file. Raises ValueError with file and field."""
    try:
        Speeds.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{where} is no bench file ({place}: {first['msg']}): bench again"
        ) from None
    return dict(content)


def read_speeds(path: Path) -> dict[str, Any]:
    """A bench file. Raises ValueError for a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): bench again") from error
    return checked(content if isinstance(content, dict) else {}, str(path))


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The bench file of ``folder`` that was measured last; None where there is none."""
    found = [(path, read_speeds(path)) for path in sorted(folder.glob("*.json"))]
    return max(found, key=lambda each: each[1]["date"], default=None)


def timings_of(
    speeds: Mapping[str, Any], subject: Mapping[str, Any], **setting: Any
) -> Iterator[dict[str, Any]]:
    """The timings of a subject in one setting, such as ``batch=1, threads=1``."""
    wanted = {"network": subject["network"], "method": subject["method"], **setting}
    for timing in speeds["timings"]:
        if all(timing[key] == value for key, value in wanted.items()):
            yield timing
