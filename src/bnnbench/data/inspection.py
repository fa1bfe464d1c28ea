"""What lies in a folder of images, by the suite's own listing and decoding.

Three layouts are known: class folders, with splits or without, trees of VOC's layout, and arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bnnbench.data import listing, voc, voc_tree
from bnnbench.data.decoding import decode
from bnnbench.data.headers import Header, check_image
from bnnbench.data.known import SOURCES, DatasetDamaged, DatasetMissing

SPLITS = ("train", "val", "valid", "validation", "test")
LISTS = ("test", "val", "train", "trainval")  # an image on several counts for the first of them
WHOLE = "all"  # a set without splits
Objects = list[tuple[str, list[float]]]  # class and box, x1 y1 x2 y2 in pixels


@dataclass
class Picture:
    """An image of the set, and what looking at it found.

    Attributes:
        path: its file.
        split: that it belongs to.
        label: its class; of detection sets none.
        objects: of detection sets, with their boxes.
        size: height and width by its XML file.
        header, digest: of a file that can be read; ``digest`` tells equal content.
        reason: why it cannot be read.
    """

    path: str
    split: str
    label: str = ""
    objects: Objects = field(default_factory=list)
    size: tuple[int, int] | None = None
    header: Header | None = None
    digest: bytes = b""
    reason: str = ""


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        layout: in words; empty for nothing that is known.
        pictures: all images that would be read.
        notes: what is left out or does not fit, a line each.
        broken: other files that cannot be used, each with its reason.
        option: the ``dataset=`` that reads this layout.
    """

    layout: str
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    option: str = ""


def find(folder: Path) -> Found:
    """What a folder holds, before an image is looked at."""
    below = listing.listed(folder)
    if trees := [tree for tree in (folder, *(folder / f for f in below.folders)) if _is_tree(tree)]:
        return _detection(trees)
    splits = [folder / name for name in SPLITS if name in below.folders]
    if splits and any(listing.class_names(split) for split in splits):
        return _class_folders({split.name: split for split in splits}, below)
    if any(listed.images for listed in _classes(folder, Found("")).values()):
        return _class_folders({WHOLE: folder}, below)
    if arrays := _arrays(below):
        return Found("arrays", notes=arrays)
    return Found("", notes=_hints(folder, below))


def look_at(pictures: list[Picture], workers: int, seen: Callable[[int], None]) -> None:
    """Decode all pictures and fill in what that finds; ``seen`` is told how many were so far."""
    with ThreadPoolExecutor(workers) as pool:
        for number, _ in enumerate(pool.map(_look, pictures), 1):
            seen(number)


def _look(picture: Picture) -> None:
    try:
        header = check_image(picture.path)
        decode(picture.path, header.plain)
        if picture.size not in (None, (header.height, header.width)):
            height, width = picture.size or (0, 0)
            turned = " upright, as its EXIF orientation turns it" * (header.orientation > 4)
            has = f"{header.width} x {header.height} pixels{turned}"
            raise ValueError(f"it has {has}; its XML file says {width} x {height}")
        picture.digest = hashlib.sha256(Path(picture.path).read_bytes()).digest()
        picture.header = header
    except (ValueError, OSError) as error:
        picture.reason = str(error)


def _classes(split: Path, found: Found) -> dict[str, listing.Listing]:
    try:
        return listing.class_images(split)
    except DatasetDamaged as error:
        found.broken.append((str(split), str(error)))
        return {}


def _class_folders(splits: dict[str, Path], above: listing.Listing) -> Found:
    found = Found("class folders", option="image_folder")
    classes: dict[str, set[str]] = {}
    for split, place in splits.items():
        listed = _classes(place, found)
        classes[split] = set(listed)
        for name, entries in listed.items():
            found.pictures += [Picture(str(place / i), split, name) for i in entries.images]
            if not entries.images:
                found.broken.append((str(place / name), "it holds no image files"))
        found.notes += _left_out(split, place, listed)
        try:
            listing.check_unread(place, listed)
        except DatasetDamaged as error:
            found.broken.append((str(place), str(error).removeprefix(f"{place} ")))
    unread = [f for f in above.folders if WHOLE not in splits and f not in splits]
    found.notes += [f"folder {name}: no split, not read" for name in unread]
    for split, names in classes.items():
        if only := sorted(names ^ classes[next(iter(classes))]):
            reason = f"only one of {next(iter(classes))} and {split} has {', '.join(only[:5])}"
            found.broken.append((str(splits[split]), reason))
    return found


def _left_out(split: str, place: Path, listed: dict[str, listing.Listing]) -> Iterator[str]:
    if told := listing.told(listed):
        yield f"{split}: {told}"
    above = listing.listed(place)
    loose = above.images + above.others
    if loose:
        yield f"{split}: {len(loose)} files in no class folder, such as {loose[0]}"
    hidden = above.hidden + [f"{name}/{h}" for name, f in listed.items() for h in f.hidden]
    if hidden:
        yield f"{split}: {len(hidden)} hidden or system files, such as {hidden[0]}"


class _Names(dict[str, int]):
    """Labels of all names that come, in that order."""

    def __contains__(self, name: object) -> bool:
        return bool(name)

    def __missing__(self, name: str) -> int:
        self[name] = len(self) + 1
        return self[name]


def _is_tree(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in ("JPEGImages", "Annotations"))


def _detection(trees: list[Path]) -> Found:
    found, names, dropped = Found("VOC's layout", option="voc_folder"), _Names(), []
    for tree in trees:
        pairs: dict[str, tuple[str, Path]] = {}
        for split, image, xml in _listed_pairs(tree, found):
            pairs.setdefault(image, (split if len(trees) == 1 else f"{tree.name}/{split}", xml))
        for image, (split, xml) in pairs.items():
            if picture := _annotated(image, split, xml, names, dropped, found):
                found.pictures.append(picture)
        unlisted = len(listing.listed(tree / "JPEGImages").images) - len(pairs)
        if unlisted:
            found.notes.append(f"{tree / 'JPEGImages'}: {unlisted} images are on none of the lists")
    if dropped:
        found.notes.append(
            f"{len(dropped)} boxes have no area, the first in {dropped[0]}: correct them, or leave "
            "them out with dataset.bad_boxes=drop"
        )
    return found


def _listed_pairs(tree: Path, found: Found) -> Iterator[tuple[str, str, Path]]:
    known = {path.stem for path in (tree / "ImageSets" / "Main").glob("*.txt")}
    splits: Iterable[str] = [name for name in LISTS if name in known] or sorted(known)
    if not splits:
        found.broken.append((str(tree), "it has no list ImageSets/Main/<split>.txt"))
    for split in splits:
        try:
            yield from ((split, image, xml) for image, xml in voc_tree.split_files(tree, split))
        except (DatasetDamaged, DatasetMissing) as error:
            found.broken.append((str(voc_tree.split_list(tree, split)), str(error)))


def _annotated(
    image: str, split: str, xml: Path, names: _Names, dropped: list[Path], found: Found
) -> Picture | None:
    try:
        annotation = voc.Annotation(xml, names, dropped)
    except DatasetDamaged as error:
        found.broken.append((str(xml), str(error).removeprefix(f"{xml}: ")))
        return None
    classes = {label: name for name, label in names.items()}
    objects = [(classes[label], box) for box, label, _ in annotation.objects]
    return Picture(image, split, objects=objects, size=annotation.size)


def _arrays(below: listing.Listing) -> list[str]:
    """The files of arrays in a folder, and folders of torchvision's sets."""
    sets = {source.folder: name for name, source in SOURCES.items() if source.folder}
    notes = [f"{f}: read by dataset={sets[f]}" for f in below.folders if f in sets]
    return notes + [f"{f}: arrays" for f in sorted(below.others) if f.endswith((".npz", ".npy"))]


def _hints(folder: Path, below: listing.Listing) -> list[str]:
    notes = []
    if below.images:
        notes.append(
            f"{len(below.images)} images lie in no class folder, such as {below.images[0]}"
        )
    if len(below.folders) == 1:
        notes.append(f"the set may lie in {folder / below.folders[0]}")
    return notes
