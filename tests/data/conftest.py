"""Small files in the forms the data folder may hold."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
import pytest
import torchvision
from PIL import Image

from bnnbench.data.sources import SOURCES

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"
Drawn = tuple[str, tuple[int, int, int, int], int]  # colour, first and last pixel from 1 on, mark


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


def _annotation(size: tuple[int, int], objects: Sequence[Drawn]) -> ElementTree:
    root = Element("annotation")
    for key, value in zip(("width", "height"), size, strict=True):
        parent = root.find("size")
        SubElement(SubElement(root, "size") if parent is None else parent, key).text = str(value)
    for name, box, difficult in objects:
        element = SubElement(root, "object")
        SubElement(element, "name").text = name
        SubElement(element, "difficult").text = str(difficult)
        bounds = SubElement(element, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            SubElement(bounds, key).text = str(value)
    return ElementTree(root)


@pytest.fixture
def write_tree() -> Callable[..., Path]:
    """Writes a tree of VOC's layout: grey images on which each object is a patch of its colour."""

    def write(
        tree: Path,
        images: Mapping[str, Sequence[Drawn]],
        splits: Mapping[str, Sequence[str]],
        size: tuple[int, int] = (60, 40),
    ) -> Path:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tree / folder).mkdir(parents=True)
        for name, objects in images.items():
            image = Image.new("RGB", size, (128, 128, 128))
            for colour, (left, top, right, bottom), _ in objects:
                image.paste(colour, (left - 1, top - 1, right, bottom))
            image.save(tree / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
            _annotation(size, objects).write(tree / "Annotations" / f"{name}.xml")
        for split, names in splits.items():
            (tree / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        return tree

    return write


@pytest.fixture
def dataset_option() -> Callable[..., Any]:
    """The data module of one yaml file: ``dataset_option("shapes", data_dir, seed=1)``."""
    from omegaconf import OmegaConf

    from bnnbench import data, resolvers

    resolvers.register()

    def build(name: str, data_dir: Path, **options: Any) -> Any:
        root = {"recipe": {"batch_size": {name: 4}}, "paths": {"data_dir": str(data_dir)}}
        root["seed"] = 3  # type: ignore[assignment]
        named = ("folder", "classes", "num_classes")  # what other values follow from
        keys = {key: options.pop(key) for key in named if key in options}
        cfg = OmegaConf.merge(root, {"dataset": OmegaConf.load(CONF / f"{name}.yaml")})
        OmegaConf.update(cfg, "dataset", keys)
        plain: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore
        return getattr(data, plain.pop("_target_").rpartition(".")[2])(**plain | options)

    return build
