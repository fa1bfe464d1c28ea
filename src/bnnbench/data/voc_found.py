"""What a detection folder holds, found before anything of it is loaded: splits, classes, bad boxes.

A config has these as values (``${found:classes}``), so that a run's name says what it was trained
on. Free of torch and numpy; the XML files are read once and what they hold is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.data import kept, voc_split
from bnnbench.data.annotations import Annotation
from bnnbench.data.foreign_labels import named_format
from bnnbench.data.known import BadFile, DatasetDamaged, DatasetMissing, data_folder
from bnnbench.data.quoting import quoted_override
from bnnbench.data.voc_layout import lists_folder, sub_folders, tree_of, usual_tree
from bnnbench.data.voc_lists import parts_of, trained_and_tested
from bnnbench.data.voc_tree import ALL, split_files, split_list

DEEPEST = 3  # folders within folders in which the one tree is looked for
MOST_FOLDERS = 20  # of each: class folders are none, and may be a thousand
STANDARD = {"train": ["trainval"], "test": ["test"]}  # where there is no folder to look into
Splits = dict[str, list[str]]  # by part, train and test


class Survey(NamedTuple):
    """Names of the classes, sorted, and the number of boxes without area."""

    classes: list[str]
    flat: int


def found(key: str, dataset: Mapping[str, Any]) -> Any:
    """What a config states with ``${found:<key>}`` of its data set.

    Args:
        key: ``train`` or ``test``, ``classes`` or ``bad_boxes``.
        dataset: the group with ``folder``, ``data_dir`` and, for the last two, ``train``, ``test``.

    Raises:
        ValueError: the folder is no detection set, or not one that can be read.
    """
    root = data_folder(dataset["folder"], dataset["data_dir"])
    if key in STANDARD:
        return find_splits(root)[key] if root.is_dir() else STANDARD[key]
    if not root.is_dir():
        if key == "bad_boxes":
            return "error"
        raise ValueError(
            f"there is no folder {root}: set dataset.folder=<folder with images and XML files>, "
            "absolute, in paths.data_dir or in the working directory"
        )
    try:
        survey = surveyed(root, [*dataset["train"], *dataset["test"]], dataset["data_dir"])
    except (DatasetMissing, DatasetDamaged) as error:
        if key == "bad_boxes":
            return "error"
        raise ValueError(str(error)) from error
    if key == "bad_boxes":
        return "drop" if survey.flat else "error"
    if not survey.classes:
        raise ValueError(f"{root} holds no object: no XML file that can be read names one")
    return survey.classes


def find_splits(root: Path) -> Splits:
    """What to train and to test on: lists of the tree, parts in folders, or a split to be made.

    Raises:
        ValueError: no tree is there, or several, or labels of another format.
    """
    splits = _search(root, DEEPEST)
    if splits is None:
        raise ValueError(_no_tree(root))
    return splits


def _search(folder: Path, depth: int) -> Splits | None:
    """The splits of a folder, or of the only one in it that has any; None: it is no one set."""
    splits = _splits_of(folder)
    if splits is not None or depth == 0:
        return splits
    inner = [(each, _search(each, depth - 1)) for each in sub_folders(folder)[:MOST_FOLDERS]]
    found = [(each, splits) for each, splits in inner if splits is not None]
    if len(found) != 1:
        return None
    ((each, splits),) = found
    return {part: [f"{each.name}/{split}" for split in names] for part, names in splits.items()}


def surveyed(root: Path, splits: Sequence[str], data_dir: str | Path) -> Survey:
    """What the XML files of some splits hold, without those that cannot be read.

    Raises DatasetMissing or DatasetDamaged where a list or a listed file is not there.
    """
    trees = [usual_tree(root / split.rpartition("/")[0]) for split in splits]
    folders = [each for tree in trees for each in (tree.images, tree.annotations)]
    lists = [split_list(root, split) for split in splits]
    folders += [file.parent for file in lists]
    return _surveyed(root, tuple(splits), str(data_dir), kept.state_of([*folders, *lists]))


@lru_cache(maxsize=64)
def _surveyed(root: Path, splits: tuple[str, ...], data_dir: str, state: str) -> Survey:
    keep = kept.place(data_dir)
    files = [xml for split in splits for _, xml in split_files(root, split, keep)]
    cache = keep / f"survey_{kept.state_of(files)}.json"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        return Survey([str(name) for name in known["classes"]], int(known["flat"]))
    except (OSError, ValueError, TypeError, KeyError):
        survey = _read(files)
    kept.write_new(cache, json.dumps(survey._asdict()))
    return survey


def _read(files: Sequence[Path]) -> Survey:
    names: set[str] = set()
    flat = 0
    for annotation in _readable(files):
        names |= {each.name for each in annotation.objects if each.name}
        flat += sum(each.flat for each in annotation.objects)
    return Survey(sorted(names), flat)


def _readable(files: Sequence[Path]) -> Iterator[Annotation]:
    """Those that can be read: a run tells of the others, all at once."""
    for file in files:
        try:
            yield Annotation(file)
        except BadFile:
            continue


def _splits_of(folder: Path) -> Splits | None:
    """The splits of one tree, or of trees called train, valid and test; None: it is neither."""
    listed = parts_of({file.stem: file.stem for file in sorted(lists_folder(folder).glob("*.txt"))})
    if chosen := trained_and_tested(listed):
        return dict(zip(("train", "test"), chosen, strict=True))
    trees = {each.name: f"{each.name}/{ALL}" for each in sub_folders(folder) if tree_of(each)}
    if chosen := trained_and_tested(parts_of(trees)):
        return dict(zip(("train", "test"), chosen, strict=True))
    if tree_of(folder) is None:
        return None
    return {"train": [voc_split.TRAIN], "test": [voc_split.TEST]}


def _no_tree(root: Path) -> str:
    trees = [each for each in sub_folders(root) if _splits_of(each) is not None]
    if trees:
        names = ", ".join(tree.name for tree in trees[:5])
        splits = [(tree.name, _splits_of(tree) or STANDARD) for tree in trees[:2]]
        lists = [
            quoted_override(
                f"dataset.{part}", [f"{name}/{s}" for name, own in splits for s in own[part]]
            )
            for part in STANDARD
        ]
        return (
            f"{root} holds several sets, {names}: choose one with "
            f"{quoted_override('dataset.folder', str(trees[0]))}, or several with such lists as "
            f"{' '.join(lists)}"
        )
    needs = (
        "dataset=voc_folder reads one XML file an image (PASCAL VOC's form), beside the images or "
        "in a folder such as Annotations"
    )
    other = named_format(root)
    if other is None:
        return f"{root} holds no images with XML files of the same names: {needs}"
    return f"{root} holds {other}: {needs}; export or convert the labels as Pascal VOC XML"
