"""What corruptions cost networks and their twins, from the files that an evaluation on them left.

A file holds a scale and networks: each with its method, its accuracy on clean images, those on
every corruption by severity, in 0 to 1, and the name of its twin among them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Losses = dict[str, dict[str, tuple[float, float]]]  # (own, twin's) by method and corruption


class Network(BaseModel):
    """Accuracies of one network."""

    name: str
    method: str
    twin: str | None
    clean: Share
    corrupted: dict[str, Annotated[list[Share], Field(min_length=1)]]


class Robustness(BaseModel):
    """The networks of one table."""

    version: Literal[1] = Field(alias="schema")
    name: str
    scale: str | None
    networks: list[Network]


class Tested(NamedTuple):
    """Losses at a scale, and the names of what they are from."""

    losses: Losses
    names: list[str]


def read(files: Iterable[Path]) -> list[Robustness]:
    """The files that can be read; others are named on stderr and left out."""
    found = []
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append(Robustness.model_validate(content))
        except (OSError, ValueError) as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            print(f"left out: {file} is damaged ({told}): evaluate again", file=sys.stderr)
    return found


def tested_at(tables: Sequence[Robustness], scale: str) -> Tested:
    """What corruptions cost each method and its twin at a scale; the first of a method counts."""
    losses: Losses = {}
    kept = [table for table in tables if table.scale == scale]
    for table in kept:
        known = {network.name: network for network in table.networks}
        for network in table.networks:
            twin = known.get(network.twin or "")
            if twin is not None and network.method not in losses:
                losses[network.method] = losses_of(network, twin)
    return Tested(losses, [table.name for table in kept])


def losses_of(network: Network, twin: Network) -> dict[str, tuple[float, float]]:
    """Clean minus corrupted accuracy, the mean over severities, of both, by corruption."""
    both = [name for name in network.corrupted if name in twin.corrupted]
    return {name: (_loss(network, name), _loss(twin, name)) for name in both}


def _loss(network: Network, name: str) -> float:
    return network.clean - mean(network.corrupted[name])
