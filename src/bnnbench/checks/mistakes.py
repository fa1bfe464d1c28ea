"""Mistakes of several runs, told all at once: each message once, with the runs that it is about."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnnbench.checks.errors import Several, message
from bnnbench.records.fingerprint import choice

GROUPS = ("dataset", "backbone", "quantizer", "loss", "recipe", "teacher")
SHOWN = 3  # runs that are named beside one message


class Mistakes:
    """What is wrong with each of some runs.

    Args:
        cfgs: their configs, by which the messages name them.
    """

    def __init__(self, cfgs: Sequence[DictConfig]) -> None:
        self.labels = labels(cfgs)
        self.found: dict[str, tuple[Exception, list[str]]] = {}

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Keep what the block raises as a mistake of the run of this number."""
        try:
            yield
        except Exception as error:
            self.add(number, error)

    def add(self, number: int, error: Exception) -> None:
        """Another mistake of the run of this number."""
        _, about = self.found.setdefault(message(error), (error, []))
        if self.labels[number] not in about:
            about.append(self.labels[number])

    def tell(self) -> None:
        """Raise what was found: the exception itself where all runs have this one, else all."""
        everyone = list(dict.fromkeys(self.labels))
        if len(self.found) == 1:
            ((error, about),) = self.found.values()
            if about == everyone:
                raise error
        if self.found:
            lines = [f"{_some(about)}: {text}" for text, (_, about) in self.found.items()]
            bad = list(dict.fromkeys(label for _, about in self.found.values() for label in about))
            raise Several("\n".join([*lines, *_without(bad, everyone)]))


def labels(cfgs: Sequence[DictConfig]) -> list[str]:
    """The choices that tell each config from the others, such as ``quantizer=adabin``."""
    rows = [{g: _chosen(cfg, g) for g in GROUPS if cfg.get(g)} for cfg in cfgs]
    differing = [group for group in GROUPS if len({row.get(group) for row in rows}) > 1]
    return [" ".join(f"{g}={row.get(g)}" for g in differing) or "all runs" for row in rows]


def _chosen(cfg: DictConfig, group: str) -> str:
    try:
        return choice(cfg, group)
    except OmegaConfBaseException:  # a name that was not given is one of the mistakes
        return "???"


def _some(about: Sequence[str]) -> str:
    rest = len(about) - SHOWN
    return ", ".join(about[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _without(bad: Sequence[str], everyone: Sequence[str]) -> list[str]:
    """How to leave several options of one group out, where others are left."""
    groups = {label.partition("=")[0] for label in bad}
    if len(groups) > 1 or len(bad) < 2 or len(bad) == len(everyone) or " " in "".join(bad):
        return []
    options = ",".join(label.partition("=")[2] for label in bad)
    return [f"The others: {shlex.quote(f'{groups.pop()}=glob(*,exclude=[{options}])')}"]
