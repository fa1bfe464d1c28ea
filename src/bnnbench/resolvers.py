"""OmegaConf resolvers of the config groups; imports lightly: it is loaded at every start."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bnnbench.data.array_survey import name_of, survey_of
from bnnbench.data.known import DatasetDamaged, check_there, data_folder, set_name
from bnnbench.data.sizing import batch_size_for, effective_size_for, epochs_for
from bnnbench.data.survey import TEST_FRACTION, Survey, survey
from bnnbench.paths import checkout, conf_dir
from bnnbench.records.fingerprint import register_resolvers as register_run_name

CLASS_FOLDERS, ARRAYS = "bnnbench.data.ImageFolderDataModule", "bnnbench.data.ArraysDataModule"
COUNTED = (CLASS_FOLDERS, ARRAYS)  # sets whose images are counted before they are read
# What follows from the number of training images of a set that no recipe knows.
SIZES = {
    "batch_size": batch_size_for,
    "epochs": epochs_for,
    "effective_size": effective_size_for,
}


def _is_detection(root: DictConfig) -> bool:
    return root.dataset.get("task") == "detection"


def headline(_root_: DictConfig) -> str:
    """The metric that stands for a run, such as test/acc."""
    split = "val" if _root_.dataset.val_fraction > 0 else "test"
    return f"{split}/{'map' if _is_detection(_root_) else 'acc'}"


def _by_task(classification: Any, detection: Any, _root_: DictConfig) -> Any:
    return detection if _is_detection(_root_) else classification


def _part(total: int, fraction: float) -> int:
    if total == 0:  # a run that only counts
        return 0
    if not 0 < fraction < 1 or total < 2:
        raise ValueError(
            f"{total} epochs cannot be parted at {fraction}: two steps take two epochs"
        )
    return min(max(round(total * fraction), 1), total - 1)


def _by_dataset(key: str, _root_: DictConfig) -> Any:
    """What the recipe states under ``key`` for this set, or what follows from its size."""
    dataset, stated = _root_.dataset, _root_.recipe.get(key) or {}
    entries = {str(name): value for name, value in stated.items()}
    if (name := str(dataset.name)) in entries:
        return entries[name]
    if dataset.get("_target_") not in COUNTED:
        raise ValueError(f"recipe.{key} has none for {name}")
    surveyed = _surveyed(dataset) if dataset._target_ == CLASS_FOLDERS else survey_of(dataset)
    images = surveyed.train_images(dataset.test_fraction)
    return SIZES[key](images)


def _class_folders(what: str, _parent_: DictConfig) -> Any:
    """What the folder of a set of class folders says of the set."""
    if what == "name":
        root = data_folder(_parent_.folder, _parent_.data_dir)
        return _own_name(set_name(root.name, f"dataset.folder={_parent_.folder}"), "folder")
    found = _surveyed(_parent_)
    if what == "classes":
        return len(found.layout.classes)
    return TEST_FRACTION if found.layout.test is None else None  # test_fraction


def _of_arrays(what: str, _parent_: DictConfig) -> Any:
    """What arrays, or a set of torchvision's, say of themselves."""
    if what == "name":
        return _own_name(name_of(_parent_), "arrays")
    if what == "pad":
        return round(_parent_.image_size / 16)
    found = survey_of(_parent_)
    if what == "size" and found.sides[0] != found.sides[1]:
        high, wide = found.sides
        raise DatasetDamaged(
            f"images are {high} pixels high and {wide} wide: give dataset.image_size=<pixels>, the "
            "side of a square that each is resized to"
        )
    values = {
        "classes": len(found.classes),
        "channels": found.channels,
        "size": found.sides[0],
        "test_fraction": None if found.parted else TEST_FRACTION,
    }
    return values[what]


def _surveyed(dataset: DictConfig) -> Survey:
    check_there(dataset.folder, dataset.data_dir)
    return survey(data_folder(dataset.folder, dataset.data_dir))


def _own_name(name: str, kind: str) -> str:
    """A name that is not that of a set which the suite knows."""
    return f"{name}_{kind}" if name in _known_sets() else name


@cache
def _known_sets() -> frozenset[str]:
    return frozenset(file.stem for file in (conf_dir() / "dataset").glob("*.yaml"))


def _found(key: str, _parent_: DictConfig) -> Any:
    """What a detection folder holds; the folder is read where a value is needed, and then once."""
    from bnnbench.data.voc_found import found  # takes an XML parser along

    value = found(key, _parent_)
    return ListConfig(value) if isinstance(value, list) else value


def register() -> None:
    """Make the resolvers of the config groups known.

    ``${headline:}`` is the metric that stands for a run, ``${by_task:a,b}`` is a for classification
    and b for detection, ``${length:list}`` counts; ``${part:total,fraction}`` epochs are the first
    part of a run and ``${rest:total,fraction}`` what it leaves, at least one each.
    ``${by_dataset:key}`` is the recipe's entry for the data set, by its name, and of somebody's own
    what ``data.sizing`` says; ``${class_folders:key}`` is ``name``, ``classes`` or
    ``test_fraction`` of the folder beside it, ``${arrays:key}`` the same of arrays, and
    ``channels``, ``size`` or ``pad``; ``${found:key}``
    of a detection set is what its folder holds.
    """
    OmegaConf.register_new_resolver("checkout", lambda: str(checkout()), replace=True)
    OmegaConf.register_new_resolver("headline", headline, replace=True)
    OmegaConf.register_new_resolver("by_task", _by_task, replace=True)
    OmegaConf.register_new_resolver("length", len, replace=True)
    OmegaConf.register_new_resolver("found", _found, replace=True)
    OmegaConf.register_new_resolver("part", _part, replace=True)
    OmegaConf.register_new_resolver("rest", lambda n, f: n - _part(n, f), replace=True)
    OmegaConf.register_new_resolver("by_dataset", _by_dataset, replace=True)
    OmegaConf.register_new_resolver("class_folders", _class_folders, replace=True)
    OmegaConf.register_new_resolver("arrays", _of_arrays, replace=True)
    register_run_name()
