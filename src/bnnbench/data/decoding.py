"""One decoder for all image files: what a viewer shows, as RGB of 8 bits.

torchvision decodes what is plain: upright JPEG (grey, RGB, CMYK, YCCK), and opaque PNG, WebP and
GIF of 8 bits. Pillow decodes the rest. EXIF's orientation is followed, transparent parts show
white, of 16 bits the upper 8 are kept, and colour profiles are not applied.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import pil_to_tensor

from bnnbench.data.headers import FORMATS, channel_bits, check_image, orientation

BACKGROUND = "white"  # behind transparent parts, as on a page
# What turns a picture upright, by EXIF's orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str) -> Tensor:
    """A picture as uint8 (3, H, W), its header looked at first; raises ValueError with a reason."""
    return decode(path, check_image(path).plain)


def decode(path: str, plain: bool) -> Tensor:
    """A picture whose header was looked at, as uint8 (3, H, W).

    Args:
        path: the file.
        plain: what its header says of it.

    Raises:
        ValueError: its content is damaged.
    """
    if not plain or not (path.isascii() or _is_utf8(path)):
        return _by_pillow(path)
    try:
        return decode_image(path, mode=ImageReadMode.RGB)
    except RuntimeError as error:  # which names torchvision's file and line first
        raise ValueError(str(error).rsplit(", ", 1)[-1]) from error


def _is_utf8(path: str) -> bool:
    """Whether torchvision, which takes no other names, can open a file."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def _by_pillow(path: str) -> Tensor:
    try:
        with Image.open(path, formats=FORMATS) as file:
            bits = channel_bits(file)
            file.load()
            turn = TURNS.get(orientation(file))
            image = file if turn is None else file.transpose(turn)
            return pil_to_tensor(_opaque(_of_8_bits(image, bits)))
    except Exception as error:  # Pillow tells of damage in many ways
        raise ValueError(str(error).replace(f" {path!r}", "")) from error


def _of_8_bits(image: Image.Image, bits: int) -> Image.Image:
    """Grey of more than 8 bits by its upper 8, as Pillow has already made of colours."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> bits - 8).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    page = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(page, image).convert("RGB")
