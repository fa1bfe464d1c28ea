"""What the splits of trees in PASCAL VOC's layout list, and the download of VOC itself.

A split is ``<list>`` of the one tree or ``<tree>/<list>`` of a folder with several. ``*`` stands
for all images of a tree, and the lists of a split that is made need not be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bnnbench.data import voc_split
from bnnbench.data.known import IMAGE_EXTENSIONS, DatasetDamaged, DatasetMissing
from bnnbench.data.voc_layout import lists_folder, usual_tree
from bnnbench.data.voc_lists import list_images

YEARS = {"VOC2007": "2007", "VOC2012": "2012"}  # tree: torchvision's name
ALL = "*"


def split_list(folder: Path, split: str) -> Path:
    """The file that lists the images of ``<tree>/<split>`` or ``<split>``."""
    tree, _, name = split.rpartition("/")
    return lists_folder(folder / tree) / f"{name}.txt"


def list_names(folder: Path, split: str, keep: Path | None = None) -> list[str]:
    """The names of a split's images, in the order of its list; raises as ``list_images``.

    ``keep`` is where the lists lie that may not be written into their tree.
    """
    tree, _, name = split.rpartition("/")
    if name == ALL:
        return list(usual_tree(folder / tree).pairs())
    if name in voc_split.MADE:
        before = voc_split.read(folder / tree, keep)
        if before is None:
            return voc_split.make(folder / tree, voc_split.candidates(folder / tree))[name]
        return list_images(before[name])
    return list_images(split_list(folder, split))


def split_files(folder: Path, split: str, keep: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Image and annotation file of each image of a split, in the order of its list."""
    names = list_names(folder, split, keep)
    tree = usual_tree(folder / split.rpartition("/")[0])
    found, described = tree.files()
    for name in names:
        if name not in found and name.lower().endswith(IMAGE_EXTENSIONS):  # as some tools list it
            name = os.path.splitext(os.path.basename(name))[0]
        for place, files, what in (
            (tree.images, found, "image"),
            (tree.annotations, described, "XML file"),
        ):
            if name not in files:
                raise DatasetDamaged(
                    f"{split_list(folder, split)} lists {name}, which has no {what} in {place}: "
                    "add it there or take the name off the list"
                )
        yield found[name], Path(described[name])


def left_out(folder: Path, splits: Sequence[str], keep: Path | None = None) -> list[str]:
    """In words, what lies in trees without lists of their own and is on no split."""
    counts = {
        "images without an XML file": 0,
        "XML files without an image": 0,
        "on neither list": 0,
    }
    for tree in dict.fromkeys(split.rpartition("/")[0] for split in splits):
        own = [s for s in splits if s.rpartition("/")[0] == tree]
        if not {s.rpartition("/")[2] for s in own} <= {ALL, *voc_split.MADE}:
            continue
        found, described = (set(files) for files in usual_tree(folder / tree).files())
        listed = {name for split in own for name in list_names(folder, split, keep)}
        sizes = (found - described, described - found, (found & described) - listed)
        for what, names in zip(counts, sizes, strict=True):
            counts[what] += len(names)
    return [f"{count} {what}" for what, count in counts.items() if count]


def download(root: Path, splits: Sequence[str]) -> None:
    """Put the trees of ``splits`` (``VOC2007/trainval``, ...) into ``root`` unless they are there.

    A tree is unpacked beside its place and moved there in one step.

    Raises:
        DatasetMissing: one cannot be downloaded, or the folder cannot be written.
    """
    wanted: dict[str, list[str]] = {}
    for split in splits:
        tree, _, name = split.rpartition("/")
        wanted.setdefault(tree, []).append(name)
    for tree, names in wanted.items():
        if tree in YEARS and not (root / tree).exists():
            _fetch(root, tree, names)


def _fetch(root: Path, tree: str, names: list[str]) -> None:
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=f".{tree}-") as part:
            # the test set of 2007 is an archive of its own, the others are in one
            for name in sorted({"test" if name == "test" else "trainval" for name in names}):
                torchvision.datasets.VOCDetection(part, YEARS[tree], name, download=True)
            (Path(part) / "VOCdevkit" / tree).rename(root / tree)
    except Exception as error:
        if not (root / tree).exists():  # else another process was faster
            raise DatasetMissing(_advice(root, tree, error)) from error


def _advice(root: Path, tree: str, reason: Exception) -> str:
    return (
        f"{tree} is not in {root} and cannot be downloaded ({reason}). Put the folder {tree} of "
        "the unpacked VOCdevkit there, or name the folder that holds VOCdevkit with "
        "paths.data_dir=<folder> or the environment variable BNNBENCH_DATA; data/README.md "
        "describes the files"
    )
