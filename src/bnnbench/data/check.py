"""What training would read in a folder, and what it could not.

Every image is decoded, by the decoder that training uses.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bnnbench.cores import cores
from bnnbench.data.contact import contact_sheet
from bnnbench.data.inspection import Found, Picture, find, look_at

FOLD = 20  # classes from which on a table of them is shortened
EXPECTED = (
    "no images in a layout that is read: expected are <split>/<class>/*.jpg, <class>/*.jpg, or "
    "JPEGImages and Annotations; docs/own_data.md describes them"
)


def check(folder: Path, sheet: Path) -> bool:
    """Print what a folder holds and draw its contact sheet; whether all of it could be read."""
    found = find(folder)
    look_at(found.pictures, cores(), _progress(len(found.pictures)))
    for line in report(folder, found):
        print(_printable(line))
    readable = [picture for picture in found.pictures if picture.header]
    if readable:
        contact_sheet(readable).save(sheet, "PNG")
        print(_printable(f"contact sheet: {sheet}"))
    return bool(found.layout) and not found.broken and len(readable) == len(found.pictures)


def report(folder: Path, found: Found) -> Iterator[str]:
    """What was found in a folder, line by line."""
    yield f"{folder}: {found.layout or EXPECTED}"
    if found.pictures:
        yield from _counts(found.pictures)
        yield from _kinds([picture for picture in found.pictures if picture.header])
        yield from _repeated(found.pictures)
    yield from found.notes
    unread = [(p.path, p.reason) for p in found.pictures if p.reason] + found.broken
    if unread:
        yield f"cannot be read: {len(unread)}"
        yield from (f"  {path}: {reason}" for path, reason in unread)
    elif found.option:
        yield f"train on it: python src/train.py dataset={found.option} {_typed(folder)}"


def _progress(total: int) -> Callable[[int], None]:
    """Tells how far a long look is, on a terminal."""

    def seen(number: int) -> None:
        if sys.stderr.isatty() and number % 500 == 0:
            print(f"\r{number} of {total} images", end="\r", file=sys.stderr, flush=True)

    return seen


def _counts(pictures: Sequence[Picture]) -> Iterator[str]:
    """Images a split, then images or objects a class and split as a table."""
    splits = sorted({picture.split for picture in pictures}, key=lambda s: ("train" not in s, s))
    images = Counter(picture.split for picture in pictures)
    yield "images: " + ", ".join(f"{split} {images[split]}" for split in splits)
    named = [(p.split, name) for p in pictures for name in _classes(p)]
    counts, classes = Counter(named), sorted({name for _, name in named})
    what = "objects" if any(picture.objects for picture in pictures) else "images"
    yield f"classes: {len(classes)} ({what})"
    shown = classes if len(classes) <= FOLD else classes[: FOLD - 5]
    width = max(map(len, ["class", *shown]))
    columns = [max(len(split), 6) for split in splits]
    heads = (f"{split:>{w}}" for split, w in zip(splits, columns, strict=True))
    yield "  ".join([f"  {'class':<{width}}", *heads])
    for name in shown:
        cells = (f"{counts[split, name]:>{w}}" for split, w in zip(splits, columns, strict=True))
        yield "  ".join([f"  {name:<{width}}", *cells])
    if len(shown) < len(classes):
        rest = [sum(counts[split, name] for split in splits) for name in classes[len(shown) :]]
        yield f"  and {len(rest)} more, of {min(rest)} to {max(rest)} {what} each"


def _classes(picture: Picture) -> list[str]:
    return [picture.label] if picture.label else [name for name, _ in picture.objects]


def _kinds(pictures: Sequence[Picture]) -> Iterator[str]:
    headers = [picture.header for picture in pictures if picture.header]
    if not headers:
        return
    kinds = Counter(f"{header.kind} {header.colours}" for header in headers)
    yield "kinds: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    if turned := sum(header.orientation != 1 for header in headers):
        yield f"turned upright by their EXIF orientation: {turned}"
    sizes = sorted((h.width * h.height, f"{h.width} x {h.height}") for h in headers)
    named = (("smallest", 0), ("median", len(sizes) // 2), ("largest", -1))
    yield "sizes: " + ", ".join(f"{word} {sizes[at][1]}" for word, at in named)


def _repeated(pictures: Sequence[Picture]) -> Iterator[str]:
    """A warning where files of the training split have the content of files of another one."""
    first = {p.digest: p for p in pictures if p.digest and _is_train(p)}
    twice = [(first[p.digest], p) for p in pictures if not _is_train(p) and p.digest in first]
    if twice:
        one, other = twice[0]
        yield (
            f"warning: {len(twice)} images are in {one.split} and in another split, such as "
            f"{one.path} and {other.path}"
        )


def _is_train(picture: Picture) -> bool:
    return picture.split.rpartition("/")[2] in ("train", "trainval")


def _printable(line: str) -> str:
    """A line without what would move a terminal's cursor, or what it cannot write."""
    return "".join(character if character.isprintable() else "?" for character in line)


def _typed(folder: Path) -> str:
    """The override that names the folder, as a shell and Hydra take it."""
    path = str(folder.resolve())
    simple = re.fullmatch(r"[\w./-]+", path, re.ASCII)
    return f"dataset.folder={path}" if simple else shlex.quote(f'dataset.folder="{path}"')
