"""Parts of JPEG files, decoded without the rest: bit for bit the pixels of the whole.

A random crop of GoogLeNet's kind sees half of an image, and a decoder need not turn the other half
into colours. ``region.c`` does that with libjpeg-turbo, compiled at first use where the library's
headers are installed; what comes out is compared with torchvision's decoder once a process, and
without it all is decoded as before.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from bnnbench.runtime import build

SOURCES = (Path(__file__).with_name("region.c"),)
LIBRARIES = ("-ljpeg",)
INSTALL = "install a C compiler and libjpeg-turbo's headers (apt install gcc libjpeg-dev)"
_END = b"\xff\xd9"  # of a JPEG
Size = tuple[int, int]  # height, width
Window = tuple[int, int, int, int]  # top, left, height, width

_TRIED = (77, 61)  # size of the picture that both decoders are given
_WINDOWS = ((0, 0, 77, 61), (0, 0, 20, 20), (17, 19, 31, 23), (40, 33, 37, 28), (76, 60, 1, 1))


class Reader:
    """Reads windows of JPEG files through the compiled ``region.c``.

    Args:
        library: the shared object.
    """

    def __init__(self, library: Path) -> None:
        self._region = ctypes.CDLL(str(library)).bnnbench_region
        numbers = [ctypes.c_int] * 6
        self._region.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *numbers, ctypes.c_void_p]

    def read(self, path: bytes, size: Size, window: Window) -> Tensor | None:
        """A window as uint8 (3, height, width); None where the file has to be decoded whole.

        That is what is cut off or damaged, of four colours, of another size, or no JPEG at all.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                return self.decode(file.read(), size, window)
        except OSError:  # the decoder of whole files says what is wrong
            return None

    def decode(self, data: bytes, size: Size, window: Window) -> Tensor | None:
        """The same of a file's content."""
        if not data.endswith(_END):
            return None
        pixels = torch.empty((*window[2:], 3), dtype=torch.uint8)
        failed = self._region(data, len(data), *size, *window, pixels.data_ptr())
        return None if failed else pixels.permute(2, 0, 1)


@cache
def reader() -> Reader | None:
    """The reader, once a process; None where it cannot be had. ``why_not`` says why."""
    return None if isinstance(found := _found(), str) else found


def why_not() -> str | None:
    """Why whole files are decoded, in one line that says what to do; None where parts are."""
    return found if isinstance(found := _found(), str) else None


@cache
def _found() -> Reader | str:
    try:
        found = Reader(build.compiled("region", [()], SOURCES, LIBRARIES))
    except (build.BuildError, OSError) as error:
        return f"{' '.join(str(error).split())}; {INSTALL}"
    return found if _agrees(found) else "this libjpeg's pixels are not those of torchvision's"


def _agrees(reader: Reader) -> bool:
    """Whether windows of a picture are those that torchvision cuts out of it."""
    rows, columns = (torch.arange(n, dtype=torch.float32) for n in _TRIED)
    waves = [(rows[:, None] / a + columns / b).sin() for a, b in ((3, 5), (7, 2), (4, 9))]
    picture = (torch.stack(waves) * 127 + 128).to(torch.uint8)
    data = encode_jpeg(picture, quality=90)  # with half the chroma in both directions
    assert isinstance(data, Tensor)
    whole = decode_jpeg(data, mode=ImageReadMode.RGB)
    assert isinstance(whole, Tensor)
    for top, left, height, width in _WINDOWS:
        part = reader.decode(data.numpy().tobytes(), _TRIED, (top, left, height, width))
        wanted = whole[:, top : top + height, left : left + width]
        if part is None or not torch.equal(part, wanted):
            return False
    return True
