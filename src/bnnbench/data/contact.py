"""A contact sheet: images of a set as training decodes them, with their classes or their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import matplotlib
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from bnnbench.data.decoding import read_image
from bnnbench.data.inspection import Picture

CELL, GAP, LABEL = 112, 6, 170  # pixels
ROWS, COLUMNS = 16, 7  # of a sheet of classes
BOXED, ACROSS = 300, 4  # pixels of a cell with boxes, cells in a row
BOXED_ROWS = 3
PAPER, INK = "white", "black"
Entry = TypeVar("Entry")


def contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """Some images of each class in a row, or of a detection set images with their objects.

    Args:
        pictures: that can be read, at least one.
    """
    return _of_classes(pictures) if pictures[0].label else _of_objects(pictures)


def _of_classes(pictures: Sequence[Picture]) -> Image.Image:
    classes: dict[str, list[Picture]] = {}
    for picture in pictures:
        classes.setdefault(picture.label, []).append(picture)
    names = _spread(sorted(classes), ROWS)
    width = LABEL + COLUMNS * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, len(names) * (CELL + GAP) + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font(14)
    for row, name in enumerate(names):
        top = GAP + row * (CELL + GAP)
        text = f"{_shortened(name, 19)}\n{len(classes[name])} images"
        draw.multiline_text((GAP, top + CELL // 3), text, INK, font)
        for column, picture in enumerate(_spread(classes[name], COLUMNS)):
            image, _ = _fitted(picture.path, CELL)
            left = LABEL + column * (CELL + GAP)
            sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
    return sheet


def _of_objects(pictures: Sequence[Picture]) -> Image.Image:
    shown = _spread(pictures, ACROSS * BOXED_ROWS)
    classes = sorted({name for picture in pictures for name, _ in picture.objects})
    table = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    colours = {name: to_hex(table(i % table.N)) for i, name in enumerate(classes)}
    rows = -(-len(shown) // ACROSS)
    size = GAP + ACROSS * (BOXED + GAP), GAP + rows * (BOXED + GAP)
    sheet = Image.new("RGB", size, PAPER)
    for number, picture in enumerate(shown):
        image = _with_boxes(picture, colours)
        row, column = divmod(number, ACROSS)
        left, top = GAP + column * (BOXED + GAP), GAP + row * (BOXED + GAP)
        sheet.paste(image, (left + (BOXED - image.width) // 2, top + (BOXED - image.height) // 2))
    return sheet


def _with_boxes(picture: Picture, colours: dict[str, str]) -> Image.Image:
    image, scale = _fitted(picture.path, BOXED)
    draw, font = ImageDraw.Draw(image), _font(11)
    for name, (left, top, right, bottom) in picture.objects:
        draw.rectangle([v * scale for v in (left, top, right, bottom)], None, colours[name], 2)
    for name, (left, top, _, _) in picture.objects:  # names over all boxes
        place = left * scale + 2, top * scale + 1
        draw.rectangle(draw.textbbox(place, _shortened(name, 20), font), colours[name])
        draw.text(place, _shortened(name, 20), INK, font)
    return image


def _fitted(path: str, side: int) -> tuple[Image.Image, float]:
    """An image shrunk or enlarged to fit a square, and by how much."""
    image = to_pil_image(read_image(path))
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return image.resize(size, kind), scale


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """At most so many of the entries, evenly spread."""
    count = min(len(entries), most)
    return [entries[i * len(entries) // count] for i in range(count)]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's font, which knows more alphabets than Pillow's own."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)
