"""The stamp of a data set's content, told from its config before anything of it is loaded.

Folders are listed, which needs no torch. The small sets have to be decoded; their stamps are kept
in a file, ``stamps.json``, and hold as long as path, size and time of change of the set's own files
do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bnnbench.data import kept, stamp
from bnnbench.data.known import SOURCES, DatasetDamaged, DatasetMissing, data_folder, files_of
from bnnbench.records.store import write_json

FORM = 1  # version of the stamps: raise it where they change, so that no old one is believed
PACKAGE = "bnnbench.data."
TREES = ("DetectionDataModule", "VOCDataModule", "ShapesDataModule")


def stamp_of(dataset: Mapping[str, Any], cache: Path) -> str | None:
    """The stamp of the set that a resolved ``cfg.dataset`` describes, as a run would give it.

    Args:
        dataset: the config's group, resolved.
        cache: the file that keeps stamps of small sets.

    Returns:
        ``sha256:<hex>``; None where the set is not there, or is damaged: a run says how.
    """
    kind = dataset["_target_"].removeprefix(PACKAGE)
    try:
        if kind == "ImageDataModule":
            return _of_small_set(dataset, cache)
        if kind == "FolderDataModule":
            return stamp.of_folders(_root(dataset, dataset["folder"]))
        if kind in TREES:
            splits = {part: dataset[part] for part in ("train", "test")}
            return stamp.of_trees(_tree(dataset), splits, kept.place(dataset["data_dir"]))
        return _of_module(dataset)
    except (FileNotFoundError, NotADirectoryError, DatasetMissing, DatasetDamaged):
        return None


def remember(dataset: Mapping[str, Any], stamp: str, cache: Path) -> None:
    """Keep what a run has found of a small set; of other sets there is nothing to keep."""
    if dataset["_target_"] != f"{PACKAGE}ImageDataModule" or (entry := _entry(dataset)) is None:
        return
    known = _read(cache)
    if known.get(_key(dataset)) != (entry := {**entry, "stamp": stamp}):
        with suppress(OSError):  # it only saves time
            write_json(cache, known | {_key(dataset): entry})


def _of_small_set(dataset: Mapping[str, Any], cache: Path) -> str | None:
    found = _entry(dataset)
    if found is None:
        return None
    known = _read(cache).get(_key(dataset), {})
    if {**found, "stamp": known.get("stamp")} == known:
        return known["stamp"]
    from bnnbench.data import sources

    fresh = stamp.of_arrays(sources.read(dataset["name"], _root(dataset)))
    remember(dataset, fresh, cache)
    return fresh


def _entry(dataset: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a small set's stamp holds for; None where the set is not there."""
    name = dataset["name"]
    if not SOURCES[name].torchvision:
        return {"form": FORM, "from": ["scikit-learn", version("scikit-learn")]}
    files = [(file, file.stat()) for file in files_of(name, _root(dataset))]
    told = [[str(file), state.st_size, state.st_mtime_ns] for file, state in files]
    return {"form": FORM, "from": told} if told else None


def _key(dataset: Mapping[str, Any]) -> str:
    name = dataset["name"]
    return f"{name} in {_root(dataset)}" if SOURCES[name].torchvision else name


def _read(cache: Path) -> dict[str, Any]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError, RecursionError):  # a damaged one is written anew
        return {}
    entries = known.items() if isinstance(known, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, dict)}


def _root(dataset: Mapping[str, Any], folder: str = "") -> Path:
    return data_folder(folder, dataset["data_dir"]).absolute()


def _tree(dataset: Mapping[str, Any]) -> Path:
    if "generate" not in dataset:
        return _root(dataset, dataset["folder"])
    from bnnbench.data.shapes import Shapes

    return _root(dataset, f"shapes/{Shapes(**dataset['generate']).folder}")


def _of_module(dataset: Mapping[str, Any]) -> str:
    """The stamp of any other data module, as it states it itself."""
    from bnnbench.config import target

    data = target(dict(dataset))(channels_last=False)
    data.setup()
    return data.stamp
