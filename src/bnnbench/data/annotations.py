"""One image's XML file in PASCAL VOC's form, read and checked. Free of torch and numpy.

Coordinates in the files count pixels from 1; boxes here are every coordinate minus 1, as the SSD
repositories read them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from bnnbench.data.known import CORNERS, BadFile


class Object(NamedTuple):
    """An object of an image.

    Attributes:
        number: its place in the file, from 1 on.
        name: of its class.
        box: x1 y1 x2 y2 within the image; without area where it is ``flat``.
        corners: as the file has them, for messages.
        difficult: whether an evaluation neither demands nor punishes it.
    """

    number: int
    name: str
    box: list[float]
    corners: list[float]
    difficult: bool

    @property
    def flat(self) -> bool:
        """Whether the box has no area within the image."""
        return not (self.box[2] > self.box[0] and self.box[3] > self.box[1])


class Annotation:
    """What an XML file says of its image.

    Args:
        path: where the file lies.

    Attributes:
        size: height and width of the image.
        objects: in the file's order.

    Raises:
        BadFile: the message names the file and says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        root = self._parsed()
        width, height = (self._number(root.find("size"), k, "size") for k in ("width", "height"))
        if min(width, height) < 1:
            raise self._damaged(f"its size is {width:g} x {height:g}", "write the image's pixels")
        self.size = int(height), int(width)
        self.objects = [self._object(*entry) for entry in enumerate(root.findall("object"), 1)]

    def _parsed(self) -> ElementTree.Element:
        try:
            return ElementTree.parse(self.path).getroot()
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            what = f" is not readable XML ({error})"
            raise BadFile(self.path, what, "replace it") from error

    def _damaged(self, reason: str, advice: str) -> BadFile:
        return BadFile(self.path, f": {reason}", advice)

    def _object(self, number: int, element: ElementTree.Element) -> Object:
        name, difficult = element.findtext("name", "").strip(), self._difficult(element, number)
        bounds = element.find("bndbox")
        if bounds is None:
            raise self._damaged(f"object {number} has no bndbox", "add it or delete the object")
        corners = [self._number(bounds, key, f"object {number}") for key in CORNERS]
        height, width = self.size
        box = [
            min(max(value - 1, 0.0), float(limit))
            for value, limit in zip(corners, (width, height) * 2, strict=True)
        ]
        return Object(number, name, box, corners, difficult)

    def _number(self, parent: ElementTree.Element | None, key: str, what: str) -> float:
        text = parent.findtext(key) if parent is not None else None
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        reason = f"{what} has no {key}" if text is None else f"{key} of {what} is {text.strip()!r}"
        raise self._damaged(reason, "write a number there")

    def _difficult(self, element: ElementTree.Element, number: int) -> bool:
        text = element.findtext("difficult", "").strip() or "0"
        if text not in ("0", "1"):
            raise self._damaged(f"difficult of object {number} is {text!r}", "write 0 or 1")
        return text == "1"
