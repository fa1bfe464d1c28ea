"""How the files of a detection set lie: which folder has the images, which the XML files.

A *tree* is a folder with images and XML files of the same names: in folders of their own, whose
names differ from tool to tool, or side by side. Free of torch and numpy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bnnbench.data.known import IMAGE_EXTENSIONS
from bnnbench.data.listing import folders_in, holds, listed

# In small letters; of several the first that holds such files is taken.
IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "img")
XML_FOLDERS = ("annotations", "annotation", "annots", "labels", "xmls", "xml")
XML = (".xml",)


@dataclass(frozen=True)
class Tree:
    """Where the images of a tree lie, and where its XML files do; perhaps in one folder."""

    images: Path
    annotations: Path

    def pairs(self) -> dict[str, tuple[str, str]]:
        """Image and XML file by their common name, sorted; those without the other are left out."""
        found, described = self.files()
        return {n: (found[n], described[n]) for n in sorted(found.keys() & described.keys())}

    def files(self) -> tuple[dict[str, str], dict[str, str]]:
        """Images by name, and XML files by name."""
        return by_name(self.images, IMAGE_EXTENSIONS), by_name(self.annotations, XML)


def tree_of(folder: Path) -> Tree | None:
    """The tree that a folder is; None where it is none."""
    inside = _folders(folder)
    named = [inside[name] for name in IMAGE_FOLDERS if name in inside]
    images = _first([*named, folder], IMAGE_EXTENSIONS)
    described = [inside[name] for name in XML_FOLDERS if name in inside]
    annotations = _first(chain(described, _deeper(described), named, [folder]), XML)
    return None if images is None or annotations is None else Tree(images, annotations)


def usual_tree(folder: Path) -> Tree:
    """The tree that a folder is or, for messages of what it lacks, would be in VOC's own layout."""
    return tree_of(folder) or Tree(folder / "JPEGImages", folder / "Annotations")


def lists_folder(tree: Path) -> Path:
    """Where the lists of a tree's splits lie: ``ImageSets/Main``, in whatever letters."""
    sets = _folders(tree).get("imagesets", tree / "ImageSets")
    return _folders(sets).get("main", sets / "Main")


def by_name(folder: Path, extensions: Sequence[str]) -> dict[str, str]:
    """Files of a folder by name without extension, ``.jpg`` before others of that name."""
    if not folder.is_dir():
        return {}
    paths = [os.path.join(folder, name) for name in listed(folder, extensions).images]
    paths.sort(key=lambda path: path.lower().endswith(".jpg"))  # the last of a name stays
    return {os.path.splitext(os.path.basename(path))[0]: path for path in paths}


def sub_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(_folders(folder).values())


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in small letters, without hidden ones."""
    names = folders_in(folder) if folder.is_dir() else []
    return {name.lower(): folder / name for name in names}


def _deeper(folders: Sequence[Path]) -> Iterator[Path]:
    """The folders for XML files within some; each is listed only once it is its turn."""
    for folder in folders:
        yield from filter(None, map(_folders(folder).get, XML_FOLDERS))


def _first(folders: Iterable[Path], extensions: Sequence[str]) -> Path | None:
    """The first folder that holds files of these kinds."""
    return next((folder for folder in folders if holds(folder, extensions)), None)
