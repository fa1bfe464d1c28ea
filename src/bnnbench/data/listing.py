"""Which files of a folder are images of a data set: one rule for loaders, stamps and checks.

Free of torch and numpy. A folder of a million images is listed in seconds: one ``scandir``, and no
file is looked into.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from bnnbench.data.known import IMAGE_EXTENSIONS, DatasetDamaged

# What systems and programs leave behind; whatever begins with a dot is hidden as well, such as
# macOS's ``._x.jpg`` beside ``x.jpg`` and ``.ipynb_checkpoints``.
LEFT_BEHIND = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "__pycache__", "icon\r", "@eadir")
)
# Endings of pictures that are not read: a set is refused that would lose these in silence.
UNREAD = {
    ".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000",
    ".jxl": "JPEG XL", ".exr": "OpenEXR", ".hdr": "Radiance",
}  # fmt: skip
ANNOTATED = "val_annotations.txt"  # Tiny-ImageNet's: file name, class and a box a line
FOLDER = "images"  # that such a list is about
SETTLED_NS = 2_000_000_000  # after a change: the coarsest clock of a file system's, FAT's


@dataclass
class Listing:
    """What lies in a folder.

    Attributes:
        images: paths below the folder, sorted.
        folders: names of the folders in it, sorted.
        others: names of files that are no images, as they came.
        hidden: files and folders that are no data, as they came.
    """

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is no data, whatever its ending."""
    return name[0] == "." or name.lower() in LEFT_BEHIND


def listed(folder: str | Path, endings: Sequence[str] = IMAGE_EXTENSIONS) -> Listing:
    """What lies directly in a folder; ``endings`` of the files that count, in lower case."""
    found, endings = Listing(), tuple(endings)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                found.hidden.append(entry.name)
            elif entry.is_dir():
                found.folders.append(entry.name)
            elif entry.name.lower().endswith(endings):
                found.images.append(entry.name)
            else:
                found.others.append(entry.name)
    found.images.sort()
    found.folders.sort()
    return found


def folders_in(folder: str | Path) -> list[str]:
    """The names of the folders in a folder, sorted; it is listed again once it has changed.

    A change within the tick of a file system's clock does not show: what is that young is listed.
    """
    changed = os.stat(folder).st_mtime_ns
    if time.time_ns() - changed < SETTLED_NS:
        return listed(folder).folders
    return list(_settled(os.fspath(folder), changed))


@lru_cache(maxsize=256)
def _settled(folder: str, changed: int) -> tuple[str, ...]:
    return tuple(listed(folder).folders)


def holds(folder: str | Path, endings: Sequence[str]) -> bool:
    """Whether a folder has a file that ``listed`` would count; looks no further than the first."""
    endings = tuple(endings)
    with os.scandir(folder) as entries:
        return any(
            entry.name.lower().endswith(endings)
            and not is_hidden(entry.name)
            and not entry.is_dir()
            for entry in entries
        )


def class_names(folder: str | Path) -> list[str]:
    """The sorted classes of a split: its folders, or what its list of annotations names."""
    folders = listed(folder).folders
    return sorted(set(_annotated(folder).values())) if _is_one(folder, folders) else folders


def class_images(folder: str | Path) -> dict[str, Listing]:
    """What lies in a split, by class in the order of their names; image paths are below the split.

    A class folder that holds no image itself but one folder is read there, as Tiny-ImageNet's
    ``<class>/images/``.

    Raises:
        DatasetDamaged: a list of annotations does not fit.
    """
    folders = listed(folder).folders
    if _is_one(folder, folders):
        return _by_list(folder)
    return {name: _of_class(folder, name) for name in folders}


def told(found: dict[str, Listing]) -> str:
    """What lies in class folders and is not read, counted, with an example; empty for nothing."""
    others = [f"{name}/{other}" for name, listing in found.items() for other in listing.others]
    folders = [f"{name}/{folder}" for name, listing in found.items() for folder in listing.folders]
    parts = []
    if others:
        kinds = Counter(_ending(other) or "without ending" for other in others)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
        parts.append(f"{len(others)} files that are no images ({counts}), such as {others[0]}")
    if folders:
        parts.append(f"{len(folders)} folders within those of classes, such as {folders[0]}")
    return f"left out {' and '.join(parts)}" if parts else ""


def check_unread(split: str | Path, found: dict[str, Listing]) -> None:
    """Refuse classes with pictures of kinds that are not read; raises DatasetDamaged."""
    others = [f"{name}/{other}" for name, listing in found.items() for other in listing.others]
    if unread := [other for other in others if _ending(other) in UNREAD]:
        raise DatasetDamaged(
            f"{split} holds {len(unread)} pictures of kinds that are not read, such as {unread[0]} "
            f"({UNREAD[_ending(unread[0])]}): convert them to JPEG or PNG, or take them out"
        )


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _of_class(split: str | Path, name: str) -> Listing:
    found = listed(os.path.join(split, name))
    if not found.images and len(found.folders) == 1:  # several would be classes of their own
        (folder,), found.folders = found.folders, []
        below = listed(os.path.join(split, name, folder))
        for kind in ("images", "folders", "others", "hidden"):
            getattr(found, kind).extend(f"{folder}/{entry}" for entry in getattr(below, kind))
    found.images = [f"{name}/{image}" for image in found.images]
    return found


def _is_one(split: str | Path, folders: list[str]) -> bool:
    """Whether all images of a split lie in one folder, and a list tells their classes."""
    return folders == [FOLDER] and os.path.isfile(os.path.join(split, ANNOTATED))


def _by_list(split: str | Path) -> dict[str, Listing]:
    """The images of Tiny-ImageNet's validation set, whose classes stand in one text file."""
    labels, place = _annotated(split), os.path.join(split, FOLDER)
    below, found = listed(place), {name: Listing() for name in sorted(set(labels.values()))}
    if only := sorted(set(labels) ^ set(below.images)):
        raise DatasetDamaged(
            f"{os.path.join(split, ANNOTATED)} and {place} differ in {len(only)} images, such as "
            f"{only[0]}: complete the one that lacks it"
        )
    for image in below.images:
        found[labels[image]].images.append(f"{FOLDER}/{image}")
    return found


def _annotated(split: str | Path) -> dict[str, str]:
    """Classes by file name, as Tiny-ImageNet's list of annotations has them."""
    path = os.path.join(split, ANNOTATED)
    try:
        rows = [row.split("\t") for row in Path(path).read_text("utf-8-sig").splitlines() if row]
        return {row[0].strip(): row[1].strip() for row in rows}
    except (UnicodeDecodeError, IndexError) as error:
        raise DatasetDamaged(
            f"{path} is no list of file name and class, parted by tabs ({error}): replace it"
        ) from error
