"""What files say of their size, compared with a limit before anything of them is decoded.

A few hundred bytes can claim a picture, or an array, of terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from zipfile import ZipFile

from numpy.lib import format as npy
from PIL import Image

# Pillow's own limit, at which it takes a picture for an attack: 537 MB of colours.
MOST_PIXELS = 2 * (1024**3 // 4 // 3)
MOST_BYTES = 2**30  # of one array of a small set; all of CIFAR-10 is 184 MB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # those that torchvision decodes


def check_image(path: str) -> None:
    """Refuse a picture that claims too many pixels, or several frames, before it is decoded.

    Raises:
        ValueError: it does, or its header or what is packed in it (texts, colour profile) is wrong.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:  # reads no pixel
            width, height = image.size
            moving = image.format == "GIF" and getattr(image, "is_animated", False)
    except Image.DecompressionBombError as error:
        raise ValueError(f"its header claims more than {MOST_PIXELS} pixels") from error
    except Exception as error:  # any kind, by what the header says
        reason = str(error).replace(f" {path!r}", "")
        raise ValueError(f"no header of {', '.join(FORMATS)} can be read: {reason}") from error
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"its header claims {width} x {height} pixels, more than {MOST_PIXELS} are not decoded"
        )
    if moving:
        raise ValueError("it is an animation")


def check_npz(path: Path, keys: Sequence[str]) -> None:
    """Refuse arrays of an npz file that claim too much, before they are unpacked.

    Args:
        path: the archive.
        keys: of the arrays; one that is not there claims nothing.

    Raises:
        ValueError: one claims more than ``MOST_BYTES``, or other than its archive says.
    """
    with ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        for key in filter(entries.__contains__, keys):
            stored = entries[key].file_size
            with archive.open(entries[key]) as member:
                size = _array_bytes(member) + member.tell()
            if max(size, stored) > MOST_BYTES or size != stored:
                raise ValueError(
                    f"{key} claims {size} bytes and its archive {stored}, at most {MOST_BYTES}"
                )


def _array_bytes(member: IO[bytes]) -> int:
    """What the header of an array claims, whose content follows in ``member``."""
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("an array holds objects, which may run code")
    return math.prod(shape) * dtype.itemsize
