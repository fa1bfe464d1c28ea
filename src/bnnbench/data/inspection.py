"""What lies in a folder of images, by the suite's own listing and decoding.

Three layouts are known: images with boxes, class folders, with splits or without, and arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bnnbench.data import listing, voc_tree
from bnnbench.data.annotations import Annotation
from bnnbench.data.decoding import decode
from bnnbench.data.headers import Header, check_image
from bnnbench.data.known import SOURCES, BadFile, DatasetDamaged, DatasetMissing
from bnnbench.data.survey import TEST, TRAIN
from bnnbench.data.usable import other_size
from bnnbench.data.voc_found import find_splits
from bnnbench.data.voc_layout import usual_tree

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
    try:
        found = find_splits(folder)
        return _detection(folder, [*found["train"], *found["test"]])
    except ValueError as error:
        boxes = str(error)  # why it is no detection set
    names = {name.lower(): name for name in below.folders}
    splits = [folder / names[name] for name in (*TRAIN, *TEST) if name in names]
    if splits and any(listing.class_names(split) for split in splits):
        return _class_folders({split.name: split for split in splits}, below)
    if any(listed.images for listed in _classes(folder, Found("")).values()):
        return _class_folders({WHOLE: folder}, below)
    if arrays := _arrays(below):
        return Found("arrays", notes=arrays)
    return Found("", notes=[*_hints(folder, below), boxes])


def look_at(pictures: list[Picture], workers: int, seen: Callable[[int], None]) -> None:
    """Decode all pictures and fill in what that finds; ``seen`` is told how many were so far."""
    with ThreadPoolExecutor(workers) as pool:
        for number, _ in enumerate(pool.map(_look, pictures), 1):
            seen(number)


def _look(picture: Picture) -> None:
    try:
        header = check_image(picture.path)
        decode(picture.path, header.plain)
        if picture.size and (wrong := other_size(picture.path, header, picture.size)):
            raise ValueError(f"it{wrong.what}; {wrong.advice}")
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


def _detection(root: Path, splits: Sequence[str]) -> Found:
    found = Found("images with boxes", option="voc_folder")
    flat: list[Path] = []
    for split in splits:
        try:
            pairs = list(voc_tree.split_files(root, split))
        except (DatasetDamaged, DatasetMissing) as error:
            found.broken.append((str(voc_tree.split_list(root, split)), str(error)))
            continue
        for image, xml in pairs:
            if picture := _annotated(image, split, xml, flat, found):
                found.pictures.append(picture)
    found.notes += _on_no_list(root, splits, len(found.pictures) + len(found.broken))
    if flat:
        found.notes.append(
            f"{len(flat)} boxes have no area, the first in {flat[0]}: correct them, or leave them "
            "out with dataset.bad_boxes=drop"
        )
    return found


def _on_no_list(root: Path, splits: Sequence[str], listed: int) -> Iterator[str]:
    """What of a set's images no split has."""
    trees = dict.fromkeys(root / split.rpartition("/")[0] for split in splits)
    rest = sum(len(usual_tree(tree).files()[0]) for tree in trees) - listed
    if rest > 0:
        yield f"{rest} images in {root} are on none of the lists, or have no XML file"


def _annotated(image: str, split: str, xml: Path, flat: list[Path], found: Found) -> Picture | None:
    try:
        annotation = Annotation(xml)
    except BadFile as error:
        found.broken.append((str(xml), error.what.removeprefix(": ").strip()))
        return None
    if nameless := [each.number for each in annotation.objects if not each.name]:
        found.broken.append((str(xml), f"object {nameless[0]} has no name"))
    flat += [xml for each in annotation.objects if each.flat]
    objects = [(each.name, each.box) for each in annotation.objects if not each.flat]
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
