"""Corrupted test sets: published arrays where they lie in the data folder, or generated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bnnbench.data.corrupted_set import corrupted_set
from bnnbench.data.corruptions import corrupted
from bnnbench.data.known import DatasetDamaged, DatasetMissing

COUNT = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a CIFAR-10 of 20 images a part."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(COUNT) % 10
    parts = {f"{part}_images": images for part in ("train", "test")}
    parts |= {f"{part}_labels": labels for part in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", **parts)
    return tmp_path


@pytest.fixture
def published(folder: Path) -> Path:
    """CIFAR-10-C beside it with one corruption; each image holds its own number."""
    place = folder / "CIFAR-10-C"
    place.mkdir()
    numbers = np.arange(5 * COUNT, dtype=np.uint8)[:, None, None, None]
    np.save(place / "fog.npy", np.broadcast_to(numbers, (5 * COUNT, 32, 32, 3)))
    np.save(place / "labels.npy", np.tile(np.arange(COUNT) % 10, 5).astype(np.uint8))
    return place


def test_generated_images_are_the_same_in_any_part_of_the_set(folder: Path) -> None:
    whole = corrupted_set("cifar10c", folder, None, ["fog"])
    part = corrupted_set("cifar10c", folder, 10, ["fog"])
    assert (whole.source, len(part.labels), part.total) == ("generated", 10, COUNT)
    assert part.labels.bincount().tolist() == [1] * 10
    assert torch.equal(part.corrupted("fog", 3), whole.corrupted("fog", 3)[part.indices])
    assert torch.equal(whole.corrupted("fog", 3, slice(5, 9)), whole.corrupted("fog", 3)[5:9])
    assert torch.equal(whole.clean(slice(5, 9)), whole.clean()[5:9])
    first = whole.clean()[0].permute(1, 2, 0).numpy()
    made = whole.corrupted("fog", 3)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(made, corrupted(first, "fog", 3, 0))


def test_published_arrays_are_read_by_severity(folder: Path, published: Path) -> None:
    found = corrupted_set("cifar10c", folder, 10, ["fog"])
    assert found.source == "published"
    numbers = found.corrupted("fog", 3)[:, 0, 0, 0]
    assert torch.equal(numbers.long(), 2 * COUNT + found.indices)
    assert torch.equal(found.corrupted("fog", 3, slice(2, 4))[:, 0, 0, 0], numbers[2:4])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("fog", None, "lacks fog.npy: unpack the authors' archive"),
        ("labels", None, "lacks labels.npy"),
        ("fog", np.zeros((COUNT, 32, 32, 3), np.uint8), r"must be uint8 \(100, 32, 32, 3\), found"),
        ("fog", np.zeros((5 * COUNT, 32, 32, 3)), "found float64"),
        ("labels", np.zeros(5 * COUNT, np.uint8), "not the test set's 20 labels"),
        ("labels", np.zeros(3, np.uint8), "not the test set's 20 labels"),
        ("fog", b"no array", "fog.npy cannot be read"),
        ("fog", b"", "fog.npy cannot be read"),
    ],
)
def test_a_damaged_folder_is_told(
    folder: Path, published: Path, name: str, content: np.ndarray | bytes | None, told: str
) -> None:
    file = published / f"{name}.npy"
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(DatasetDamaged, match=told):
        corrupted_set("cifar10c", folder, None, ["fog"])


def test_more_images_than_there_are_and_no_set_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images=99: the test set has 20"):
        corrupted_set("cifar10c", folder, 99, ["fog"])
    with pytest.raises(DatasetMissing, match="cifar100 is not in"):
        corrupted_set("cifar100c", tmp_path)
    with pytest.raises(DatasetMissing, match="put ImageNet's validation set there"):
        corrupted_set("imagenetc", tmp_path)


def test_imagenets_folders_are_read_and_a_missing_image_told(tmp_path: Path) -> None:
    from PIL import Image

    for place in ("imagenet/val/a", "ImageNet-C/fog/2/a"):
        (tmp_path / place).mkdir(parents=True)
        theirs = "fog" in place
        colour, size = ((9, 9, 9), (224, 224)) if theirs else ((200, 0, 0), (300, 260))
        Image.new("RGB", size, colour).save(tmp_path / place / "x.png")
    found = corrupted_set("imagenetc", tmp_path, None, ["fog"], [2])
    assert found.corrupted("fog", 2).shape == found.clean().shape == (1, 3, 224, 224)
    assert found.corrupted("fog", 2).unique().tolist() == [9]
    assert found.corrupted("fog", 2, slice(0, 1)).shape == found.clean(slice(0, 1)).shape
    with pytest.raises(DatasetDamaged, match="lacks 1 images, such as"):
        corrupted_set("imagenetc", tmp_path, None, ["fog"], [1, 2])
    Image.new("RGB", (300, 260)).save(tmp_path / "ImageNet-C/fog/2/a/x.png")
    for late in (False, True):
        with pytest.raises(DatasetDamaged, match=r"x\.png has 260 x 300 pixels, .* 224 x 224"):
            found.corrupted("fog", 2) if late else corrupted_set(
                "imagenetc", tmp_path, None, ["fog"], [2]
            )
