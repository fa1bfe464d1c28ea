"""A generated detection set: coloured shapes, written as a tree of PASCAL VOC's layout.

It needs no download and takes a small detector minutes to learn, while everything that real data
passes through is exercised: JPEG files, XML files, difficult objects, images that are not square.
Classes differ in outline and in hue, on a dark background, so that binary networks learn them in
the same minutes.
"""

from __future__ import annotations

import colorsys
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from bnnbench.data.known import CORNERS, check_whole

VERSION = 1  # the drawing's: raise it with every change, so that trees on disk are drawn again
CLASSES = ("rectangle", "cross", "triangle")
ASPECTS = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75), (1.25, 1.0), (1.0, 1.25))  # width, height
DIFFICULT, FAINT = 0.1, 0.25  # share of difficult objects, and their part of the colour
Box = tuple[int, int, int, int]  # first column and row, the ones after the last


@dataclass(frozen=True)
class Shape:
    """One object: its class, the box of its painted pixels, and whether it is marked difficult."""

    name: str
    box: Box
    difficult: bool


@dataclass(frozen=True)
class Shapes:
    """What the tree holds.

    Attributes:
        trainval, test: number of images.
        size: pixels of an image; some are a quarter longer or shorter one way.
        seed: what all drawing starts from.

    Raises:
        ValueError: an argument out of range.
    """

    trainval: int = 1024
    test: int = 96
    size: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("generate.trainval", self.trainval, 2, "draw at least 2 images")
        check_whole("generate.test", self.test, 1, "draw at least 1 image")
        check_whole("generate.size", self.size, 32, "shapes need at least 32 pixels")
        check_whole("generate.seed", self.seed, 0, "a seed is not negative")

    @property
    def folder(self) -> str:
        """Name of the tree, which tells what it holds."""
        return "-".join(map(str, ("VOC", VERSION, *astuple(self))))

    def write(self, tree: Path) -> None:
        """Write the tree unless it is there; it appears in one step.

        Raises OSError where the folder cannot be written.
        """
        if tree.exists():
            return
        tree.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=tree.parent, prefix=".shapes-") as part:
            for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
                (Path(part) / "tree" / folder).mkdir(parents=True)
            self._write_split(Path(part) / "tree", "trainval", range(self.trainval))
            last = self.trainval + self.test
            self._write_split(Path(part) / "tree", "test", range(self.trainval, last))
            try:
                (Path(part) / "tree").rename(tree)
            except OSError:
                if not tree.exists():  # else another process was faster
                    raise

    def _write_split(self, tree: Path, split: str, numbers: range) -> None:
        names = [f"{number:06d}" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            pixels, shapes = draw(self.size, self.seed, number)
            Image.fromarray(pixels).save(tree / "JPEGImages" / f"{name}.jpg", quality=95)
            annotation = _annotation(f"{name}.jpg", pixels.shape[:2], shapes)
            annotation.write(tree / "Annotations" / f"{name}.xml")
        (tree / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def draw(size: int, seed: int, number: int) -> tuple[np.ndarray, list[Shape]]:
    """One image uint8 (H, W, 3) of about ``size`` pixels, and its shapes in the order painted."""
    random = np.random.RandomState((seed, number))  # numpy guarantees the stream of this generator
    aspect = ASPECTS[random.randint(len(ASPECTS))]
    width, height = (round(size * factor) for factor in aspect)
    pixels = _background(random, width, height)
    shapes: list[Shape] = []
    for _ in range(random.randint(2, 7)):
        if (box := _place(random, width, height, shapes)) is not None:
            shapes.append(_paint(random, pixels, box))
    noisy = pixels + random.normal(0, 6, pixels.shape)
    return noisy.round().clip(0, 255).astype(np.uint8), shapes


def _background(random: np.random.RandomState, width: int, height: int) -> np.ndarray:
    """A dark grey that changes from one corner of the image to another, float (H, W, 3)."""
    first, second = random.uniform(30, 100, 2)
    angle = random.uniform(0, 2 * np.pi)
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    share = 0.5 + (np.cos(angle) * x + np.sin(angle) * y) / 3
    return np.repeat((first + (second - first) * share)[..., None], 3, axis=2)


def _place(
    random: np.random.RandomState, width: int, height: int, shapes: list[Shape]
) -> Box | None:
    """A box of 18 to 54 % of the image that leaves the others visible, None if none is found."""
    for _ in range(30):
        side, stretch = random.uniform(0.22, 0.44), np.exp(random.uniform(-0.2, 0.2))
        w, h = (round(min(width, height) * side * factor) for factor in (stretch, 1 / stretch))
        left, top = random.randint(0, width - w + 1), random.randint(0, height - h + 1)
        box = (left, top, left + w, top + h)
        if all(_overlap(box, shape.box) < 0.1 for shape in shapes):
            return box
    return None


def _overlap(one: Box, other: Box) -> float:
    """Common area over the smaller one's."""
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(w, 0) * max(h, 0) / min(areas)


def _paint(random: np.random.RandomState, pixels: np.ndarray, box: Box) -> Shape:
    """Paint a shape of any class, in a shade of the class's colour, that fills the box."""
    number = random.randint(len(CLASSES))
    name, difficult = CLASSES[number], random.uniform() < DIFFICULT
    hue = (number + random.uniform(-0.25, 0.25)) / len(CLASSES) % 1  # red, green, blue
    saturation, value = random.uniform(0.7, 1), random.uniform(0.7, 1)
    colour = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255
    height, width = pixels.shape[:2]
    mask = Image.new("1", (width, height))
    _outline(ImageDraw.Draw(mask), name, box)
    painted = np.asarray(mask)
    strength = FAINT if difficult else 1.0
    pixels[painted] = strength * colour + (1 - strength) * pixels[painted]
    found = mask.getbbox()
    assert found is not None  # a box has at least 5 pixels a side
    return Shape(name, found, difficult)


def _outline(canvas: ImageDraw.ImageDraw, name: str, box: Box) -> None:
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1  # the last pixels
    if name == "rectangle":
        canvas.rectangle((left, top, right, bottom), fill=1)
    elif name == "cross":
        arm, beam = (right - left) // 3, (bottom - top) // 3
        canvas.rectangle((left + arm, top, right - arm, bottom), fill=1)
        canvas.rectangle((left, top + beam, right, bottom - beam), fill=1)
    else:
        corners = [(left, bottom), (right, bottom), ((left + right) // 2, top)]
        canvas.polygon(corners, fill=1)


def _annotation(
    file: str, size: tuple[int, ...], shapes: list[Shape]
) -> ElementTree.ElementTree[ElementTree.Element]:
    """The XML file of an image; pixels count from 1 and the last one belongs to the box."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file
    element = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (size[1], size[0], 3), strict=True):
        ElementTree.SubElement(element, key).text = str(value)
    for shape in shapes:
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = shape.name
        ElementTree.SubElement(element, "difficult").text = str(int(shape.difficult))
        left, top, right, bottom = shape.box
        bounds = ElementTree.SubElement(element, "bndbox")
        for key, value in zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True):
            ElementTree.SubElement(bounds, key).text = str(value)
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)
