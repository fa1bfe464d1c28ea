"""Packed networks that come with the package, each with the result of the run that trained it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.paths import zoo_dir
from bnnbench.records.store import read_result_file
from bnnbench.runs.trained import Trained, load

KNOWN = 100  # images of the known answer


class Entry(NamedTuple):
    """One network of the zoo.

    Attributes:
        name: such as ``resnet20_adabin_digits``.
        file: the packed network.
        record: the ``result.json`` of its run, with the accuracy that was measured.
        answer: logits (100, K) of ``runtime.check.check_images``, as safetensors.
    """

    name: str
    file: Path
    record: Path
    answer: Path

    @property
    def result(self) -> dict[str, Any]:
        """What its run measured."""
        return read_result_file(self.record)


def name_of(result: Mapping[str, Any]) -> str:
    """The name of a run's entry: backbone, method and data set.

    Full precision has its structure in the place of a method's own, which it is the twin of.
    """
    backbone, method, data = (
        result["choices"][key] for key in ("backbone", "quantizer", "dataset")
    )
    if method == "fp32":
        method = f"fp32_{result['structure']['shortcut']}_{result['structure']['nonlinearity']}"
    return f"{backbone}_{method}_{data}".replace("/", "_")


def entry(name: str, folder: Path | None = None) -> Entry:
    """Where the files of that name lie, whether they are there or not."""
    home = folder or zoo_dir()
    ends = ".safetensors", ".json", ".known.safetensors"
    return Entry(name, *(home / f"{name}{end}" for end in ends))


def pretrained(folder: Path | None = None) -> list[str]:
    """Names of the networks that come with the package."""
    return sorted(file.stem for file in (folder or zoo_dir()).glob("*.json"))


def load_pretrained(name: str) -> Trained:
    """A trained network of the zoo, packed: images uint8 (N, C, S, S) to logits.

    Its accuracy is in ``bnnbench.runs.zoo.entry(name).result``.

    Raises:
        ValueError: there is none of that name; the message lists those that there are.
    """
    known = pretrained()
    if name not in known:
        close = get_close_matches(str(name), known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{name}: no pretrained network; {meant}There are {', '.join(known)}")
    return load(entry(name).file)
