"""Lists of images, and which parts of a set are trained and tested on. Free of torch and numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from bnnbench.data.known import DatasetDamaged, DatasetMissing

# What tools call the parts of a set, in small letters.
PARTS = {
    "trainval": ("trainval",),
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
P = TypeVar("P")


def list_images(path: Path) -> list[str]:
    """The image names in a split's list; raises DatasetMissing or DatasetDamaged."""
    if not path.is_file():
        # a list a class and split lies there as well: the shortest names are the splits'
        known = sorted((p.stem for p in path.parent.glob("*.txt")), key=lambda s: (len(s), s))
        exist = f"these exist: {', '.join(known[:8])}" if known else "there is no split at all"
        raise DatasetMissing(
            f"{path} does not exist; {exist}. Name the splits with dataset.train and dataset.test "
            "and the folder with dataset.folder=<folder>; data/README.md describes the files"
        )
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetDamaged(f"{path} cannot be read ({error}): save it as UTF-8 text") from error
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise DatasetDamaged(f"{path} lists no image: write one image's name a line, or delete it")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetDamaged(f"{path} lists {twice} twice: leave one of the two lines")
    return names


def parts_of(named: Mapping[str, P]) -> dict[str, P]:
    """What stands under the usual names of the parts, by part."""
    small = {name.lower(): each for name, each in named.items()}
    firsts = {part: next((n for n in names if n in small), None) for part, names in PARTS.items()}
    return {part: small[name] for part, name in firsts.items() if name is not None}


def trained_and_tested(parts: Mapping[str, P]) -> tuple[list[P], list[P]] | None:
    """The parts to train and to test on; None where there is only one.

    The test part is for the headline, and all else is trained on, as the protocol of PASCAL VOC
    has it; without one the validation part takes its place.
    """
    have = {part for part in PARTS if part in parts}
    learned = ["trainval"] if "trainval" in have else [p for p in ("train", "val") if p in have]
    if "test" in have and learned:
        return [parts[part] for part in learned], [parts["test"]]
    if {"train", "val"} <= have:
        return [parts["train"]], [parts["val"]]
    return None
