"""Small files in the forms the data folder may hold."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from bnnbench.data.sources import SOURCES


@pytest.fixture
def small() -> Callable[[str], dict[str, np.ndarray]]:
    """What the ``.npz`` of a small set holds: 200 training images, 100 to test on."""

    def arrays(name: str) -> dict[str, np.ndarray]:
        source, draw = SOURCES[name], np.random.default_rng(0)
        channels, height, width = source.shape
        content = {}
        for part, n in (("train", 200), ("test", 100)):
            shape = (n, height, width, channels)
            content[f"{part}_images"] = draw.integers(0, 256, shape, dtype=np.uint8)
            content[f"{part}_labels"] = np.arange(n) % source.classes
        return content

    return arrays


def _pickled(path: Path, content: dict[str, Any]) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def _batch(images: np.ndarray, labels: np.ndarray, key: str) -> dict[str, Any]:
    """CIFAR's own layout: a row an image, all of red, all of green, all of blue."""
    return {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), key: labels.tolist()}


@pytest.fixture
def write_cifar(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, dict], Path]:
    """Writes a set in torchvision's layout, and tells torchvision the files' checksums."""

    def write(name: str, root: Path, content: dict[str, np.ndarray]) -> Path:
        reader = getattr(torchvision.datasets, name.upper())
        folder = root / reader.base_folder
        folder.mkdir(parents=True)
        key = "labels" if name == "cifar10" else "fine_labels"
        lists = []
        for part, files in (("train", reader.train_list), ("test", reader.test_list)):
            images = np.split(content[f"{part}_images"], len(files))
            labels = np.split(content[f"{part}_labels"], len(files))
            lists.append(
                [
                    [file, _pickled(folder / file, _batch(x, y, key))]
                    for (file, _), x, y in zip(files, images, labels, strict=True)
                ]
            )
        meta = dict(reader.meta)
        meta["md5"] = _pickled(folder / meta["filename"], {meta["key"]: ["a class"]})
        monkeypatch.setattr(reader, "train_list", lists[0])
        monkeypatch.setattr(reader, "test_list", lists[1])
        monkeypatch.setattr(reader, "meta", meta)
        return folder

    return write


@pytest.fixture
def write_fashion() -> Callable[[Path, dict], Path]:
    """Writes Fashion-MNIST's idx files: magic number, sizes (big endian), bytes."""

    def write(root: Path, content: dict[str, np.ndarray]) -> Path:
        raw = root / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for part, stem in (("train", "train"), ("test", "t10k")):
            for kind, file in (("images", "images-idx3"), ("labels", "labels-idx1")):
                data = content[f"{part}_{kind}"].astype(np.uint8).squeeze()
                head = np.array([0x0800 + data.ndim, *data.shape], dtype=">i4").tobytes()
                (raw / f"{stem}-{file}-ubyte").write_bytes(head + data.tobytes())
        return raw

    return write
