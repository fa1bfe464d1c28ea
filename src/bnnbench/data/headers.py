"""What files say of themselves, judged before anything of them is decoded.

A few hundred bytes can claim a picture, or an array, of terabytes; and a picture may be of a kind
that no decoder here turns into the colours that a viewer shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZipFile

from numpy.lib import format as npy
from PIL import ExifTags, Image, features
from PIL.ImageFile import ImageFile

# Pillow's own limit, at which it takes a picture for an attack: 537 MB of colours.
MOST_PIXELS = 2 * (1024**3 // 4 // 3)
MOST_BYTES = 2**30  # of one array of a small set; all of CIFAR-10 is 184 MB
MOST_EXIF = 2**20
# The formats that are opened at all. Whether Pillow has a decoder for AVIF is up to its build.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
FORMATS += ("AVIF",) if "avif" in features.modules and features.check("avif") else ()
SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16-bit grey
# Pillow's modes that are read, in words.
COLOURS = {"1": "1-bit", "L": "grey", "LA": "grey", "P": "palette", "PA": "palette"}
COLOURS |= dict.fromkeys(("RGB", "RGBA", "RGBa", "RGBX"), "RGB") | {"CMYK": "CMYK"}
COLOURS |= {"YCbCr": "YCbCr"} | dict.fromkeys(SIXTEEN, "grey")
# By format: the modes whose colours torchvision's decoder gives, if they are opaque and of 8 bits.
PLAIN = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB",),
    "GIF": ("L", "P", "RGB"),
}
# Where Pillow keeps what may say how to turn a picture; a TIFF has tags of its own.
TURNING = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))
# What often lies under the name of a picture: where, first bytes there, and what that is.
OTHERS = (
    (4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1"), "it is HEIC, as phones write it"),
    (4, (b"ftypavi",), "it is AVIF, for which this Pillow has no decoder"),
    (4, (b"jP  ",), "it is JPEG 2000"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL"), "it is JPEG XL"),
    (0, (b"v/1\x01", b"#?RADIANCE"), "it has a high dynamic range (OpenEXR or Radiance)"),
    (0, (b"8BPS",), "it is a Photoshop document"),
    (0, (b"%PDF",), "it is a PDF document"),
    (0, (b"\0\0\1\0",), "it is an icon"),
    (0, (b"<svg", b"<?xml"), "it is XML or SVG, without pixels"),
    (0, (b"<!doctype", b"<html"), "it is a web page"),
    (0, (b"version https://git-lfs",), "it is a pointer of Git LFS: git lfs pull fetches it"),
    (0, (b"\0\5\x16\7",), "it is a resource file of macOS"),
)


@dataclass(frozen=True)
class Header:
    """What a picture is.

    Attributes:
        kind: its format, ``JPEG``, ``PNG`` and so on.
        colours: its channels in words.
        width, height: in pixels, as it is decoded: upright.
        orientation: EXIF's, from 1 to 8; 1 is a picture that is stored upright.
        plain: upright, opaque and of 8 bits, so that torchvision's decoder gives its colours.
    """

    kind: str
    colours: str
    width: int
    height: int
    orientation: int
    plain: bool


def check_image(path: str) -> Header:
    """What the header of a picture says; no pixel is decoded.

    Raises:
        ValueError: it claims too many pixels or has several frames, it is of a kind that is not
            read, or the header, or what is packed in it (texts, colour profile), is wrong.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if (reason := _refusal(image)) is None:
                return _header(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"its header claims more than {MOST_PIXELS} pixels") from error
    except Exception as error:  # any kind, by what the header says
        raise ValueError(_unopened(path, error)) from error
    raise ValueError(reason)


def orientation(image: Image.Image) -> int:
    """How EXIF tells a viewer to turn an opened picture, from 1 to 8; 1 where it says nothing."""
    if image.format != "TIFF" and TURNING.isdisjoint(image.info):
        return 1
    try:
        exif = Image.Image.getexif(image)  # that of a PNG would decode it
        said = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow tells of damaged entries in many ways
        return 1
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def channel_bits(image: ImageFile) -> int:
    """Bits of a channel as the file has them; of at most 8 where Pillow reduces them itself."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # pyright: ignore[reportAttributeAccessIssue]
    hidden = image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile)
    return 16 if hidden or image.mode in (*SIXTEEN, "I") else 8


def _header(image: ImageFile) -> Header:
    kind = "JPEG" if image.format == "MPO" else str(image.format)  # a JPEG with a preview behind it
    if kind == "PNG" and "exif" not in image.info:
        _read_late_exif(image)
    width, height = image.size
    turned = orientation(image)
    if turned > 4 and kind != "TIFF":  # whose size Pillow states upright
        width, height = height, width
    deep, opaque = channel_bits(image) > 8, not image.has_transparency_data
    words = [COLOURS.get(image.mode, "grey"), "16 bit" * deep, "with alpha" * (not opaque)]
    plain = image.mode in PLAIN.get(kind, ()) and opaque and not deep and turned == 1
    return Header(kind, " ".join(filter(None, words)), width, height, turned, plain)


def _refusal(image: ImageFile) -> str | None:
    """Why a picture that can be opened is not read."""
    (width, height), mode, kind = image.size, image.mode, image.format
    if width * height > MOST_PIXELS:
        claim = f"its header claims {width} x {height} pixels"
        return f"{claim}, more than {MOST_PIXELS} are not decoded"
    if kind != "MPO" and getattr(image, "is_animated", False):
        return "it has several pages" if kind == "TIFF" else "it is an animation"
    if mode == "F":
        return "its pixels are floats, of which no black and white is known"
    if mode not in COLOURS and (mode, kind) != ("I", "PPM"):
        return f"its pixels are of Pillow's mode {mode}, neither grey, RGB nor CMYK of 16 bits"
    if "transparency" in image.info and channel_bits(image) > 8:
        return "it has 16 bits and a transparent colour"
    if mode in SIXTEEN and kind == "TIFF" and image.tag_v2.get(262) == 0:  # pyright: ignore[reportAttributeAccessIssue]
        return "it has 16 bits of which 0 is white"
    return None


def _read_late_exif(image: ImageFile) -> None:
    """Take over the EXIF of a PNG that has it behind its pixels, where Pillow meets it too late."""
    file, start = image.fp, image.tile[0][2] - 8 if image.tile else 0
    if file is None:
        return
    place = file.tell()
    while len(head := _at(file, start, 8)) == 8:
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf" and size <= MOST_EXIF:
            image.info["exif"] = b"Exif\0\0" + _at(file, start + 8, size)
            break
        start += 12 + size
    file.seek(place)


def _at(file: IO[bytes], start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _unopened(path: str, error: Exception) -> str:
    """Why a picture could not be opened."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}"
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "it is empty"
    for start, beginnings, what in OTHERS:
        if head[start:].lower().startswith(tuple(mark.lower() for mark in beginnings)):
            return what
    reason = str(error).replace(f" {path!r}", "")
    return f"no header of {', '.join(FORMATS)} can be read: {reason}"


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
