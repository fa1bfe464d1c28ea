"""A split that is made where a tree has no lists of its own: a fifth of the images to test on.

It follows from the images' names alone, so that it is the same for every run and on every machine,
and it is written as two plain lists, so that images which are added later do not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bnnbench.data import kept
from bnnbench.data.known import DatasetDamaged
from bnnbench.data.voc_layout import lists_folder, usual_tree
from bnnbench.data.voc_lists import list_images, parts_of

TRAIN, TEST = "bnnbench_train", "bnnbench_test"  # names of the lists
MADE = (TRAIN, TEST)
TEST_SHARE = 0.2


def make(tree: Path, names: list[str]) -> dict[str, list[str]]:
    """Names to train and to test on, by list, each sorted.

    Raises DatasetDamaged where there are too few to part.
    """
    if len(names) < 2:
        raise DatasetDamaged(
            f"{tree} holds {len(names)} image{'' if len(names) == 1 else 's'} with an XML file of "
            "the same name: a set has at least one to train and one to test on"
        )
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"0 {name}".encode()).digest())
    count = max(1, round(TEST_SHARE * len(names)))
    return {TRAIN: sorted(drawn[count:]), TEST: sorted(drawn[:count])}


def read(tree: Path, keep: Path | None) -> dict[str, Path] | None:
    """The lists of a split that was made before: in the tree, or kept in ``keep``; None: neither.

    One list without the other says nothing: both are made anew.
    """
    for folder in (lists_folder(tree), None if keep is None else _kept(tree, keep)):
        files = {} if folder is None else {name: folder / f"{name}.txt" for name in MADE}
        if files and all(file.is_file() for file in files.values()):
            return files
    return None


def write(root: Path, splits: Sequence[str], keep: Path) -> None:
    """Write the lists of those splits that are made, unless they are there.

    They go into their tree, or where that may not be written into ``keep``. Nothing is replaced.
    """
    named = (split.rpartition("/") for split in splits)
    for tree in dict.fromkeys(root / tree for tree, _, name in named if name in MADE):
        if read(tree, keep) is None:
            _write(tree, keep, make(tree, candidates(tree)))


def _write(tree: Path, keep: Path, split: dict[str, list[str]]) -> None:
    for folder in (lists_folder(tree), _kept(tree, keep)):
        texts = {folder / f"{name}.txt": "\n".join(names) + "\n" for name, names in split.items()}
        written = [kept.write_new(file, text) for file, text in texts.items()]
        if all(written):
            return


def candidates(tree: Path) -> list[str]:
    """The names that a split is made of: those on the tree's own list, or all images with XML."""
    lists = parts_of({file.stem: file for file in sorted(lists_folder(tree).glob("*.txt"))})
    listed = [name for file in lists.values() for name in list_images(file)]
    return list(dict.fromkeys(listed)) or list(usual_tree(tree).pairs())


def _kept(tree: Path, keep: Path) -> Path:
    place = hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:8]
    return keep / "splits" / f"{tree.resolve().name}-{place}"
