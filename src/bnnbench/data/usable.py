"""Which files of a set can be used: all of them are looked at before a training starts.

A JPEG whose header is sound and whose last two bytes end it is not decoded: that finds what
decoding would (torchvision tells of nothing else that is broken in one) in a thirtieth of the time.
Every other file is decoded. Sets in which all is sound are remembered.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from bnnbench.cores import cores
from bnnbench.data import kept
from bnnbench.data.decoding import decode
from bnnbench.data.headers import Header, check_image
from bnnbench.data.known import JOBS, BadFile, DatasetDamaged

BAD_IMAGES = ("error", "drop")
NAMED = 10  # files in one message
MOST = 200_000  # images of a set that is looked at before it is read: seconds
EVERY = 5.0  # seconds between two lines
REMEDY = ", or leave such images out with dataset.bad_images=drop"
Size = tuple[int, int]  # height, width
Part = tuple[np.ndarray, Tensor]
T = TypeVar("T")
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange height and width
_END = b"\xff\xd9"  # of a JPEG


def unusable(
    sizes: Mapping[str, Size | None], keep: Path | None = None, besides: Sequence[Path] = ()
) -> list[BadFile]:
    """The images that cannot be read, or are not as large as they are said to be.

    Args:
        sizes: height and width by path; None where nothing is said.
        keep: folder for a mark that says that all is sound, so that it is looked at once.
        besides: files that the sizes were read from.
    """
    mark = None if keep is None else keep / f"sound_{kept.state_of([*sizes, *besides])}"
    if mark is not None and mark.exists():
        return []
    with ThreadPoolExecutor(max(1, cores() // int(os.environ.get(JOBS, 1)))) as pool:
        found = _counted(pool.map(_look, sizes, sizes.values()), len(sizes))
        problems = [problem for problem in found if problem is not None]
    if mark is not None and not problems:
        kept.write_new(mark, "")
    return problems


def sound_parts(
    parts: dict[str, Part], folder: Path, bad_images: str, keep: Path
) -> dict[str, Part]:
    """The parts of a classification set with the images that can be read.

    Sets of more than ``MOST`` images are looked at as they are read, unless some are to be dropped.

    Args:
        parts: files as bytes (N,) and labels int64 (N,), by part.
        folder: of the set.
        bad_images: ``error`` refuses images that cannot be read, ``drop`` leaves them out.
        keep: see ``unusable``.

    Raises:
        DatasetDamaged: some cannot, and they are not to be dropped.
    """
    if bad_images == "error" and sum(len(files) for files, _ in parts.values()) > MOST:
        return parts
    paths = [os.fsdecode(file) for files, _ in parts.values() for file in files]
    bad = unusable(dict.fromkeys(paths), keep)
    if bad_images == "error" and bad:
        raise DatasetDamaged(told(bad, folder, REMEDY))
    warn_of(bad, "images that cannot be used")
    names = {os.fsencode(each.file) for each in bad}
    return {part: _without(names, *each) for part, each in parts.items()} if bad else parts


def _without(names: set[bytes], files: np.ndarray, labels: Tensor) -> Part:
    rest = torch.tensor([n for n, file in enumerate(files) if file not in names], dtype=torch.int64)
    return files[rest], labels[rest]


def told(problems: Sequence[BadFile], folder: Path, remedy: str, advice: str = "") -> str:
    """What is said of files that cannot be used, the first ten by name; empty where all can.

    Args:
        problems: one a mistake; of several in a file the first is told.
        folder: of the set.
        remedy: what is done about any of them.
        advice: what is done about several; by default to correct or replace them.
    """
    firsts: dict[str, BadFile] = {}
    for problem in problems:
        firsts.setdefault(str(problem.file), problem)
    if len(firsts) <= 1:
        return f"{problems[0]}{remedy}" if problems else ""
    lines = [f"{_within(file, folder)}{each.what}" for file, each in firsts.items()]
    rest = len(lines) - NAMED
    lines[NAMED:] = [f"and {rest} more"] if rest > 0 else []
    count = f"{len(firsts)} files of {folder} cannot be used"
    return f"{count}: {'; '.join(lines)}; {advice or 'correct or replace them'}{remedy}"


def warn_of(problems: Sequence[BadFile], what: str) -> None:
    """Say that some are left out, and which is the first; ``what`` they are called in plural."""
    if problems:
        first = problems[0]
        rank_zero_warn(f"{what} left out: {len(problems)}, the first in {first.file}{first.what}")


def _counted(found: Iterator[T], count: int) -> Iterator[T]:
    """The same, and while it takes long a line every few seconds."""
    last = time.monotonic()
    for number, each in enumerate(found):
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            print(f"looking at {number:,} of {count:,} images", file=sys.stderr, flush=True)
        yield each


def _within(file: str, folder: Path) -> str:
    return file.removeprefix(f"{folder}{os.sep}")


def _look(path: str, size: Size | None) -> BadFile | None:
    """What is wrong with an image; None where nothing is."""
    try:
        header = check_image(path)
        if not (header.plain and _ends_as_jpeg(path)):
            decode(path, header.plain)
    except (ValueError, OSError) as error:
        return BadFile(path, f" cannot be read ({' '.join(str(error).split())})", "replace it")
    return None if size is None else other_size(path, header, size)


def _ends_as_jpeg(path: str) -> bool:
    with open(path, "rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
        file.seek(-len(_END), os.SEEK_END)
        return file.read() == _END


def other_size(path: str, header: Header, size: Size) -> BadFile | None:
    """An image whose XML file says another size than it has once it stands upright."""
    upright, turn = (header.height, header.width), header.orientation
    stored = upright[::-1] if turn in _TURNED else upright
    if size == upright:
        return None
    is_, says = (f"{width} x {height}" for height, width in (upright, size))
    if size == stored:  # and not upright: the tag turns it by a quarter
        return BadFile(
            path,
            f" is a rotated photograph: its EXIF orientation {turn} makes it {is_} pixels upright, "
            f"its XML file describes it as stored, {says}",
            "save it upright without that tag and its boxes with it, or, where the boxes fit the "
            "stored image, remove the tag (exiftool -Orientation= FILE)",
        )
    turned = ": they are exchanged, as after a rotation" if size == upright[::-1] else ""
    return BadFile(
        path,
        f" has {is_} pixels, its XML file says {says}{turned}",
        "correct the one that is wrong",
    )
