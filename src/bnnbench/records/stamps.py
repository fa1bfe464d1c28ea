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

from bnnbench.data import array_survey, kept, stamp
from bnnbench.data.array_sets import known_set
from bnnbench.data.known import (
    SOURCES,
    DatasetDamaged,
    DatasetMissing,
    data_folder,
    files_of,
)
from bnnbench.data.survey import layout
from bnnbench.records.store import write_json

FORM = 1  # version of the stamps: raise it where they change, so that no old one is believed
PACKAGE = "bnnbench.data."
IN_MEMORY = ("ImageDataModule", "ArraysDataModule")  # their stamps are kept
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
        if kind in IN_MEMORY:
            return _of_small_set(dataset, cache)
        if kind == "FolderDataModule":
            return stamp.of_folders(data_folder(dataset["folder"], dataset["data_dir"]))
        if kind == "ImageFolderDataModule":
            root = data_folder(dataset["folder"], dataset["data_dir"])
            return stamp.of_folders(root, layout(root).splits)
        if kind in TREES:
            splits = {part: dataset[part] for part in ("train", "test")}
            return stamp.of_trees(_tree(dataset), splits, kept.place(dataset["data_dir"]))
        return _of_module(dataset)
    except (FileNotFoundError, NotADirectoryError, DatasetMissing, DatasetDamaged):
        return None


def remember(dataset: Mapping[str, Any], stamp: str, cache: Path) -> None:
    """Keep what a run has found of a small set; of other sets there is nothing to keep."""
    kind = dataset["_target_"].removeprefix(PACKAGE)
    if kind not in IN_MEMORY or (entry := _entry(dataset)) is None:
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
    fresh = stamp.of_arrays(_arrays(dataset))
    remember(dataset, fresh, cache)
    return fresh


def _arrays(dataset: Mapping[str, Any]) -> Any:
    if "file" in dataset:
        from bnnbench.data import arrays

        return arrays.read(dataset)
    from bnnbench.data import sources

    return sources.read(dataset["name"], _root(dataset))


def _entry(dataset: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a small set's stamp holds for; None where the set is not there."""
    name = dataset["name"]
    if "file" not in dataset and not SOURCES[name].torchvision:
        return {"form": FORM, "from": ["scikit-learn", version("scikit-learn")]}
    files = [(file, file.stat()) for file in _files(dataset)]
    told = [[str(file), state.st_size, state.st_mtime_ns] for file, state in files]
    return {"form": FORM, "from": told} if told else None


def _files(dataset: Mapping[str, Any]) -> list[Path]:
    """The files of a small set, none where it is not there."""
    if "file" not in dataset:
        return files_of(dataset["name"], _root(dataset))
    if dataset["torchvision"] is None:
        return array_survey.files_of(dataset)
    places = [_root(dataset, file) for file in known_set(dataset["torchvision"]).files]
    inside = [file for place in places for file in place.rglob("*") if file.is_file()]
    return sorted([*inside, *(place for place in places if place.is_file())])


def _key(dataset: Mapping[str, Any]) -> str:
    if "file" in dataset:
        told = [str(dataset[key]) for key in ("torchvision", *array_survey.FILES)]
        return f"arrays {' '.join(told)} in {_root(dataset)}"
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
        return data_folder(dataset["folder"], dataset["data_dir"])
    from bnnbench.data.shapes import Shapes

    return _root(dataset, f"shapes/{Shapes(**dataset['generate']).folder}")


def _of_module(dataset: Mapping[str, Any]) -> str:
    """The stamp of any other data module, as it states it itself."""
    from bnnbench.config import target

    data = target(dict(dataset))(channels_last=False)
    data.setup()
    return data.stamp
