"""Random parts of image files: the pixels of decoding all, cropping and resizing, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from torchvision.transforms import v2

from bnnbench.data import regions
from bnnbench.data.augmentation import Augmentation, training_transform
from bnnbench.data.cropped import CroppedFiles
from bnnbench.data.file_loader import ImageFiles
from bnnbench.data.known import DatasetDamaged
from bnnbench.data.regions import INSTALL, Reader
from bnnbench.runtime import build

FORMS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "turned": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
}


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth colours with edges, (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    smooth.paste(Image.fromarray(coarse).resize((size[0] // 3, size[1] // 2), 0), (7, 5))
    return smooth


@pytest.fixture
def files(tmp_path: Path) -> np.ndarray:
    """One of each form, of odd sizes, and a PNG."""
    for number, (name, options) in enumerate(FORMS.items()):
        options = {"mode": "RGB"} | options
        picture = photograph((131 + 17 * number, 97 + 5 * number), number)
        file = tmp_path / f"{name.replace(':', '')}.jpg"
        picture.convert(options.pop("mode")).save(file, "JPEG", quality=88, **options)
    photograph((60, 50)).save(tmp_path / "other.png")
    return np.array([os.fsencode(file) for file in sorted(tmp_path.iterdir())])


@pytest.fixture
def reader() -> Reader:
    reason, found = regions.why_not(), regions.reader()
    if reason and reason.endswith(INSTALL):
        pytest.skip(reason)
    assert found is not None, reason
    return found


@pytest.mark.parametrize("name", [name for name in FORMS if name not in ("CMYK", "turned")])
def test_a_window_is_cut_out_of_the_whole(name: str, tmp_path: Path, reader: Reader) -> None:
    """Windows of all sizes, at every edge and in the middle."""
    options = {"mode": "RGB"} | FORMS[name]
    picture = photograph((157, 119)).convert(options.pop("mode"))
    picture.save(tmp_path / "a.jpg", quality=90, **options)
    data = (tmp_path / "a.jpg").read_bytes()
    whole = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    draw = np.random.default_rng(1)
    for _ in range(150):
        height, width = int(draw.integers(1, 120)), int(draw.integers(1, 158))
        top = int(draw.choice([0, 119 - height, draw.integers(0, 120 - height)]))
        left = int(draw.choice([0, 157 - width, draw.integers(0, 158 - width)]))
        part = reader.decode(data, (119, 157), (top, left, height, width))
        assert part is not None
        assert torch.equal(part, whole[:, top : top + height, left : left + width])


@pytest.mark.parametrize("kind", ["inception", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("compiled", [True, False])
def test_training_images_are_those_of_whole_files(files, kind, compiled, monkeypatch) -> None:
    """Against ``ImageFiles`` with torchvision's chain, epoch by epoch, image by image."""
    if not compiled:
        monkeypatch.setattr(regions, "reader", lambda: None)
    elif (reason := regions.why_not()) and reason.endswith(INSTALL):
        pytest.skip(reason)
    augmentation = Augmentation((0.5,) * 3, (0.25,) * 3, flip=True, kind=kind, erasing=0.5)
    chain = training_transform(48, augmentation)
    labels = torch.arange(len(files))
    crop, *rest = chain.transforms
    assert isinstance(crop, v2.RandomResizedCrop)
    ours = CroppedFiles(files, labels, crop, v2.Compose(rest), seed=4)
    theirs = ImageFiles(files, labels, chain, seed=4)
    keys = [(epoch, index) for epoch in range(9) for index in range(len(files))]
    before = torch.get_rng_state()
    batch = ours.__getitems__(keys)
    assert torch.equal(torch.get_rng_state(), before)
    for key, (image, label) in zip(keys, batch, strict=True):
        assert torch.equal(image, theirs[key][0]), files[key[1]]
        assert label == key[1]
    assert torch.equal(ours[3, 2][0], batch[3 * len(files) + 2][0])


def test_a_collated_batch_is_channels_last_as_decoded(files) -> None:
    images = ImageFiles(files, torch.arange(len(files)), v2.Resize((20, 20)), seed=0)
    examples = [images[0, index] for index in range(len(files))]
    batch, labels = images.collate(examples)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, torch.stack([image for image, _ in examples]))
    assert labels.tolist() == list(range(len(files)))


@pytest.mark.parametrize("damage", ["cut off", "scrambled above", "another size"])
def test_damage_is_left_to_the_decoder_of_whole_files(damage, tmp_path, reader: Reader) -> None:
    photograph((157, 119)).save(tmp_path / "a.jpg", quality=90)
    data, size = (tmp_path / "a.jpg").read_bytes(), (119, 157)
    if damage == "cut off":
        data = data[: len(data) // 2]
    elif damage == "scrambled above":
        middle = len(data) // 2
        data = data[:middle] + b"\xff\xd8\xff\x00\xff\xd3" * 20 + data[middle:]
    else:
        size = (157, 119)
    assert reader.decode(data, size, (90, 20, 20, 20)) is None


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    photograph((157, 119)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:900])
    file = np.array([os.fsencode(tmp_path / "a.jpg")])
    images = CroppedFiles(file, torch.zeros(1), v2.RandomResizedCrop(8), v2.Identity(), seed=0)
    with pytest.raises(DatasetDamaged, match=r"a\.jpg cannot be read .*: replace it"):
        images.__getitems__([(0, 0)])


def test_headers_are_looked_at_once_by_all_workers(files, monkeypatch) -> None:
    """A worker process tells the others: after it the parent asks no header."""
    images = ImageFiles(files, torch.arange(len(files)), v2.Resize((20, 20)), seed=0)
    if (child := os.fork()) == 0:
        [images.plain_size(index) for index in range(len(files))]
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setattr("bnnbench.data.file_loader.check_image", None)
    for index, file in enumerate(files):
        size = images.plain_size(index)
        if b"turned" in file:
            assert size is None
        else:
            assert size == decode_image(os.fsdecode(file)).shape[1:]


def test_without_a_compiler_it_says_what_to_install(monkeypatch) -> None:
    def fail(*_: object) -> Path:
        raise build.BuildError("compiling it failed (jpeglib.h: No such file or directory)")

    regions._found.cache_clear()
    monkeypatch.setattr(build, "compiled", fail)
    try:
        assert str(regions.why_not()).endswith(INSTALL)
        assert "jpeglib.h" in str(regions.why_not())
    finally:
        regions._found.cache_clear()


def test_pixels_of_another_library_are_not_taken(monkeypatch, reader: Reader) -> None:
    """One whose decoder rounds otherwise would change the numbers of a run."""
    decode = reader.decode
    monkeypatch.setattr(reader, "decode", lambda *a: (found := decode(*a)) is None or found + 1)
    assert not regions._agrees(reader)
