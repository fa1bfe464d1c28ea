"""Image files of every kind: pixels that the test wrote itself, or a refusal that says why."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torchvision.io import ImageReadMode, decode_image

from bnnbench.data.decoding import read_image
from bnnbench.data.headers import FORMATS, Header, check_image

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]
DEEP = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)
ALPHA = np.array([[0, 64, 128, 192, 255, 1, 254]] * 5, dtype=np.uint8)
FEW = (COLOURS // 128 * 200 + 11).astype(np.uint8)  # of eight colours
ON_WHITE = np.round((COLOURS * (ALPHA / 255)[..., None]) + (255 - ALPHA)[..., None])
GREY_ON_WHITE = np.round(GREY * (ALPHA / 255) + 255 - ALPHA)
AVIF = pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow has no decoder for AVIF")
Saved = Callable[..., Path]


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(
    depth: int, kind: int, rows: list[bytes], before: bytes = b"", behind: bytes = b""
) -> bytes:
    """A PNG of 5 rows of 7 pixels, written out."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, depth, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + behind + chunk(b"IEND", b"")


def packed(values: np.ndarray, depth: int) -> list[bytes]:
    """Rows of a PNG of fewer than 8 bits."""
    texts = ["".join(f"{value:0{depth}b}" for value in row) for row in values]
    widths = [-(-len(text) // 8) * 8 for text in texts]
    return [
        int(text.ljust(width, "0"), 2).to_bytes(width // 8, "big")
        for text, width in zip(texts, widths, strict=True)
    ]


def big(array: np.ndarray) -> list[bytes]:
    return [row.astype(">u2").tobytes() for row in array]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Writes pixels by Pillow, or bytes as they are."""

    def write(content: Any, kind: str, **options: Any) -> Path:
        path = tmp_path / f"a.{kind.lower()}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            image = content if isinstance(content, Image.Image) else Image.fromarray(content)
            image.save(path, kind, **options)
        return path

    return write


def grey(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, -1)


def with_alpha(colours: np.ndarray) -> Image.Image:
    image = Image.fromarray(colours)
    image.putalpha(Image.fromarray(ALPHA))
    return image


def palette(**_: Any) -> Image.Image:
    return Image.fromarray(FEW).quantize(8)


LOSSLESS = {"lossless": True, "exact": True}
UPPER = (DEEP >> 8).astype(np.uint8)
DEEP_COLOURS = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], -1)
BITS = {depth: (DEEP % 2**depth).astype(np.uint8) for depth in (1, 2, 4)}
BLACK_WHITE = Image.fromarray(BITS[1] * 255).convert("1")
INKS = Image.new("CMYK", (7, 5), (100, 50, 25, 60))
INKED = np.full((5, 7, 3), (119, 157, 176))  # (255 - ink) * (255 - black) / 255
EIGHT = bytes(range(0, 24)) + bytes(24)
# content, format, options of Pillow; pixels, largest difference; whether torchvision's decoder does
KINDS: dict[str, tuple[Any, str, dict[str, Any], np.ndarray, int, bool]] = {
    "PNG RGB": (COLOURS, "PNG", {}, COLOURS, 0, True),
    "PNG grey": (GREY, "PNG", {}, grey(GREY), 0, True),
    **{
        f"PNG grey {depth} bit": (
            png(depth, 0, packed(values, depth)), "PNG", {},
            grey(values.astype(int) * 255 // (2**depth - 1)), 0, True,
        )
        for depth, values in BITS.items()
    },
    "PNG grey 16 bit": (DEEP, "PNG", {}, grey(UPPER), 0, False),
    "PNG RGB 16 bit": (
        png(16, 2, big(DEEP_COLOURS)), "PNG", {}, (DEEP_COLOURS >> 8).astype(np.uint8), 0, False,
    ),
    "PNG RGBA 16 bit": (
        png(16, 6, big(np.dstack([DEEP_COLOURS, ALPHA.astype(np.uint16) * 257]))), "PNG", {},
        (DEEP_COLOURS >> 8) * (ALPHA / 255)[..., None] + (255 - ALPHA)[..., None], 1, False,
    ),
    "PNG palette": (palette(), "PNG", {}, FEW, 0, True),
    "PNG palette of 2 bits": (
        png(2, 3, packed(BITS[2], 2), chunk(b"PLTE", EIGHT[:12])), "PNG", {},
        np.stack([BITS[2] * 3, BITS[2] * 3 + 1, BITS[2] * 3 + 2], -1), 0, True,
    ),
    "PNG palette with alpha": (
        png(2, 3, packed(BITS[2], 2), chunk(b"PLTE", EIGHT[:12]) + chunk(b"tRNS", b"\xff\xff\0")),
        "PNG", {},
        np.where(grey(BITS[2]) == 2, 255, BITS[2][..., None] * 3 + np.arange(3)), 0, False,
    ),
    "PNG grey with a transparent grey": (
        png(8, 0, [row.tobytes() for row in GREY], chunk(b"tRNS", struct.pack(">H", GREY[0, 0]))),
        "PNG", {}, grey(np.where(GREY[0, 0] == GREY, 255, GREY)), 0, False,
    ),
    "PNG RGBA": (with_alpha(COLOURS), "PNG", {}, ON_WHITE, 1, False),
    "PNG grey and alpha": (with_alpha(GREY), "PNG", {}, grey(GREY_ON_WHITE), 1, False),
    "WEBP": (COLOURS, "WEBP", LOSSLESS, COLOURS, 0, True),
    "WEBP with alpha": (with_alpha(COLOURS), "WEBP", LOSSLESS, ON_WHITE, 1, False),
    "GIF": (palette(), "GIF", {}, FEW, 0, True),
    "GIF grey": (GREY, "GIF", {}, grey(GREY), 0, True),
    "BMP RGB": (COLOURS, "BMP", {}, COLOURS, 0, False),
    "BMP grey": (GREY, "BMP", {}, grey(GREY), 0, False),
    "BMP palette": (palette(), "BMP", {}, FEW, 0, False),
    "BMP 1 bit": (BLACK_WHITE, "BMP", {}, grey(BITS[1]) * 255, 0, False),
    "PPM": (COLOURS, "PPM", {}, COLOURS, 0, False),
    "PGM": (GREY, "PPM", {}, grey(GREY), 0, False),
    "PGM 16 bit": (DEEP, "PPM", {}, grey(UPPER), 0, False),
    "PBM": (BLACK_WHITE, "PPM", {}, grey(BITS[1]) * 255, 0, False),
    "PGM up to 100": (
        b"P5 7 5 100\n" + (GREY % 101).tobytes(), "PPM", {}, grey(GREY % 101) * 2.55, 1, False,
    ),
    "PGM up to 1000": (
        b"P5 7 5 1000\n" + (DEEP % 1001).astype(">u2").tobytes(), "PPM", {},
        grey(DEEP % 1001) * 0.255, 1, False,
    ),
    "PPM 16 bit": (
        b"P6 7 5 65535\n" + DEEP_COLOURS.astype(">u2").tobytes(), "PPM", {},
        DEEP_COLOURS / 257, 1, False,
    ),
    "PGM as text": (
        b"P2 7 5 255\n" + " ".join(map(str, GREY.ravel())).encode(), "PPM", {},
        grey(GREY), 0, False,
    ),
    "TIFF RGB": (COLOURS, "TIFF", {}, COLOURS, 0, False),
    "TIFF packed": (COLOURS, "TIFF", {"compression": "tiff_lzw"}, COLOURS, 0, False),
    "TIFF grey": (GREY, "TIFF", {}, grey(GREY), 0, False),
    "TIFF grey 16 bit": (DEEP, "TIFF", {}, grey(UPPER), 0, False),
    "TIFF palette": (palette(), "TIFF", {}, FEW, 0, False),
    "TIFF RGBA": (with_alpha(COLOURS), "TIFF", {}, ON_WHITE, 1, False),
    "TIFF CMYK": (INKS, "TIFF", {}, INKED, 1, False),
    "JPEG grey": (np.full((5, 7), 90, np.uint8), "JPEG", {}, np.full((5, 7, 3), 90), 1, True),
    "JPEG RGB": (
        np.full((5, 7, 3), (200, 30, 90), np.uint8), "JPEG", {"quality": 100},
        np.full((5, 7, 3), (200, 30, 90)), 2, True,
    ),
    "JPEG CMYK": (INKS, "JPEG", {"quality": 100}, INKED, 2, True),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_the_pixels_that_were_written(name: str, saved: Saved) -> None:
    content, kind, options, expected, allowed, plain = KINDS[name]
    path = saved(content, kind, **options)
    image, header = read_image(str(path)), check_image(str(path))
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 5, 7))
    assert np.abs(image.permute(1, 2, 0).numpy().astype(float) - expected).max() <= allowed
    assert (header.width, header.height, header.orientation) == (7, 5, 1)
    assert header.plain == plain
    if plain:  # bit for bit what sets of plain images have always been read as
        assert torch.equal(image, decode_image(str(path), mode=ImageReadMode.RGB))


def test_ycck_is_cmyk_behind_a_turn_of_colours(saved: Saved) -> None:
    """A JPEG whose first three planes are taken for Y, Cb, Cr of the inverted inks."""
    path = saved(INKS, "JPEG", quality=100)
    content = path.read_bytes()
    mark = content.index(b"Adobe") + 11
    assert content[mark] == 0
    path.write_bytes(content[:mark] + b"\2" + content[mark + 1 :])
    y, cb, cr, k = (255 - value for value in (100, 50, 25, 60))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    # libjpeg gives 255 minus what YCbCr says as ink, which Adobe has inverted
    expected = [(255 - min(max(value, 0), 255)) * k / 255 for value in (red, green, blue)]
    assert read_image(str(path))[:, 2, 3].tolist() == pytest.approx(expected, abs=3)


# By EXIF's words: where row 0 and column 0 of what is stored are seen.
SEEN = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.transpose(1, 0, 2),  # left, top
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],  # right, top
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda a: a.transpose(1, 0, 2)[::-1],  # left, bottom
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", LOSSLESS), ("TIFF", {}), ("TIFF", {"compression": "tiff_deflate"})],
)
@pytest.mark.parametrize("orientation", SEEN)
def test_exif_turns_a_picture_upright(orientation, kind, options, saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(COLOURS, kind, exif=exif, **options)
    header, expected = check_image(str(path)), SEEN[orientation](COLOURS)
    assert np.array_equal(read_image(str(path)).permute(1, 2, 0).numpy(), expected)
    assert (header.height, header.width) == expected.shape[:2]
    assert header.orientation == orientation


@pytest.mark.parametrize("orientation", SEEN)
def test_exif_turns_a_jpeg_upright(orientation: int, tmp_path: Path) -> None:
    blocks = np.kron(np.array([[0, 80, 160], [240, 40, 200]]), np.ones((16, 16)))
    pixels = grey(blocks.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif)
    image = read_image(str(tmp_path / "a.jpg")).permute(1, 2, 0).numpy()
    assert np.abs(image.astype(int) - SEEN[orientation](pixels)).max() <= 3


@pytest.mark.parametrize("place", ["before", "behind"])
def test_exif_of_a_png_counts_wherever_it_stands(place: str, saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    entry = {place: chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))}
    path = saved(png(8, 2, [row.tobytes() for row in COLOURS], **entry), "PNG")
    assert check_image(str(path)).orientation == 6
    assert np.array_equal(read_image(str(path)).permute(1, 2, 0).numpy(), SEEN[6](COLOURS))


@pytest.mark.parametrize("content", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_says_nothing(content: bytes, saved: Saved) -> None:
    path = saved(COLOURS, "PNG", exif=content)
    assert np.array_equal(read_image(str(path)).permute(1, 2, 0).numpy(), COLOURS)
    with_more = saved(with_alpha(COLOURS), "PNG", exif=content)  # by Pillow
    assert tuple(read_image(str(with_more)).shape) == (3, 5, 7)


def test_a_tiff_of_12_bits_has_a_range_of_12(saved: Saved) -> None:
    """Written out: two pixels of 0xFF0 and 0x123 in three bytes, behind the list of tags."""
    tags = {
        256: 2,
        257: 1,
        258: 12,
        259: 1,
        262: 1,
        273: 8 + 2 + 9 * 12 + 4,
        277: 1,
        278: 1,
        279: 3,
    }
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + rows + bytes(4) + b"\xff\x01\x23"
    image = read_image(str(saved(content, "TIFF")))
    assert image.tolist() == [[[0xFF, 0x12]]] * 3


@AVIF
def test_avif_is_read_where_pillow_has_a_decoder(saved: Saved) -> None:
    flat = np.full((32, 48, 3), (200, 30, 90), np.uint8)
    path = saved(flat, "AVIF", quality=100)
    image = read_image(str(path)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(image - flat).max() <= 4
    assert check_image(str(path)).kind == "AVIF"


def test_a_cameras_preview_behind_a_jpeg_is_no_second_frame(saved: Saved) -> None:
    flat = np.full((32, 48, 3), (200, 30, 90), np.uint8)
    preview = Image.new("RGB", (8, 8))
    path = saved(flat, "MPO", save_all=True, append_images=[preview])
    assert check_image(str(path)) == Header("JPEG", "RGB", 48, 32, 1, True)
    assert np.abs(read_image(str(path)).permute(1, 2, 0).numpy().astype(int) - flat).max() <= 2


def two(kind: str) -> tuple[Any, str, dict[str, Any]]:
    second = Image.fromarray(COLOURS[::-1].copy())
    return COLOURS, kind, {"save_all": True, "append_images": [second]}


FLOATS = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
INVERTED = {262: 0}  # photometric interpretation
REFUSED: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "an animated GIF": (*two("GIF"), "an animation"),
    "an animated PNG": (*two("PNG"), "an animation"),
    "an animated WEBP": (*two("WEBP"), "an animation"),
    "TIFF of pages": (*two("TIFF"), "several pages"),
    "TIFF of floats": (FLOATS, "TIFF", {}, "floats"),
    "PFM": (b"Pf\n7 5\n-1.0\n" + FLOATS.tobytes(), "PPM", {}, "floats"),
    "TIFF of 32 bits": (DEEP.astype(np.int32), "TIFF", {}, "mode I, neither"),
    "TIFF in LAB": (Image.new("LAB", (7, 5)), "TIFF", {}, "mode LAB"),
    "TIFF whose 0 is white": (DEEP, "TIFF", {"tiffinfo": INVERTED}, "0 is white"),
    "PNG of 16 bits with a transparent grey": (
        png(16, 0, big(DEEP), chunk(b"tRNS", b"\0\1")), "PNG", {}, "16 bits and a transparent",
    ),
    "PNG of 16 bits with a transparent colour": (
        png(16, 2, big(DEEP_COLOURS), chunk(b"tRNS", bytes(6))), "PNG", {}, "16 bits and a",
    ),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "JPG", {}, "HEIC"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPG", {}, "JPEG 2000"),
    "Radiance": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "JPG", {}, "high dynamic range"),
    "a web page": (b"<!DOCTYPE html><html>404", "JPG", {}, "web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "JPG", {}, "git lfs pull"),
    "macOS": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(40), "JPG", {}, "resource file"),
    "nothing": (b"", "JPG", {}, "empty"),
    "a text": (b"hello", "JPG", {}, "no header of JPEG, PNG"),
    "half a TIFF": (b"II*\0\x08\0\0\0", "TIFF", {}, "no header of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_its_header(name: str, saved: Saved) -> None:
    content, kind, options, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as caught:
        check_image(str(saved(content, kind, **options)))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_or_closed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        check_image(str(tmp_path / "gone.png"))
    with pytest.raises(ValueError, match="Is a directory"):
        check_image(str(tmp_path))


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF", "PNG"])
def test_a_truncated_picture_is_refused(kind: str, saved: Saved) -> None:
    draw = np.random.default_rng(0).integers(0, 256, (60, 60, 4), dtype=np.uint8)
    path = saved(draw if kind == "PNG" else draw[..., :3], kind)
    path.write_bytes(path.read_bytes()[: 3 * 60 * 30])
    with pytest.raises(ValueError, match=r"\w"):
        read_image(str(path))


def test_every_format_that_is_opened_is_tried_here() -> None:
    assert {"JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF"} <= set(FORMATS)
    assert set(FORMATS) - {"AVIF"} == {kind for _, kind, *_ in KINDS.values()}
    assert ("AVIF" in FORMATS) == bool(features.check("avif"))
