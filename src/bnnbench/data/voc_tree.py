"""Folders in PASCAL VOC's layout: what a split lists, and the download of VOC itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bnnbench.data.known import IMAGE_EXTENSIONS, DatasetDamaged, DatasetMissing
from bnnbench.data.listing import listed

YEARS = {"VOC2007": "2007", "VOC2012": "2012"}  # tree: torchvision's name


def split_list(folder: Path, split: str) -> Path:
    """The file that lists the images of ``<tree>/<split>`` or ``<split>``."""
    tree, _, name = split.rpartition("/")
    return folder / tree / "ImageSets" / "Main" / f"{name}.txt"


def split_files(folder: Path, split: str) -> Iterator[tuple[str, Path]]:
    """Image and annotation file of each image of a split, in the order of its list."""
    path = split_list(folder, split)
    names = list_images(path)
    images, annotations = path.parents[2] / "JPEGImages", path.parents[2] / "Annotations"
    found = _stems(images, IMAGE_EXTENSIONS)
    described = _stems(annotations, (".xml",))
    for name in names:
        for place, files, what in ((images, found, "image"), (annotations, described, "XML file")):
            if name not in files:
                raise DatasetDamaged(
                    f"{path} lists {name}, which has no {what} in {place}: add it there or take "
                    "the name off the list"
                )
        yield found[name], Path(described[name])


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


def _stems(folder: Path, extensions: Sequence[str]) -> dict[str, str]:
    """Files of a folder by name without extension, ``.jpg`` before others of that name."""
    if not folder.is_dir():
        return {}
    paths = [os.path.join(folder, name) for name in listed(folder, extensions).images]
    paths.sort(key=lambda path: path.lower().endswith(".jpg"))  # the last of a name stays
    return {os.path.splitext(os.path.basename(path))[0]: path for path in paths}


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
