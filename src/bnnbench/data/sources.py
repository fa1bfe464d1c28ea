"""Reads the small image sets: embedded, from the data folder, or downloaded by torchvision.

Every reader returns ``(train_images, train_labels, test_images, test_labels)``: images uint8
(N, C, H, W), labels int64 (N,).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "fashion_mnist": 10}
NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


class DatasetMissing(FileNotFoundError):
    """The data set is not in the data folder and cannot be downloaded."""


class DatasetDamaged(ValueError):
    """A file of the data set cannot be used."""


def read(name: str, data_dir: Path) -> Arrays:
    """The arrays of the data set ``name``; downloads nothing.

    Raises:
        DatasetMissing: it is not in ``data_dir``.
        DatasetDamaged: a file there cannot be read or holds something else.
    """
    if name == "digits":
        return _digits()
    npz = data_dir / f"{name}.npz"
    if npz.exists():
        return _read_npz(npz, CLASSES[name])
    return _read_torchvision(name, data_dir, download=False)


def download(name: str, data_dir: Path) -> None:
    """Put the data set into ``data_dir`` unless it is there; at most one download."""
    if name == "digits" or (data_dir / f"{name}.npz").exists():
        return
    try:
        _read_torchvision(name, data_dir, download=False)
    except DatasetMissing:
        _read_torchvision(name, data_dir, download=True)


def _digits(test_fraction: float = 0.2) -> Arrays:
    """scikit-learn's 1797 handwritten digits, 8x8; a fixed stratified fifth is the test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * 15).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = stratified_split(labels, test_fraction)
    return images[train], labels[train], images[test], labels[test]


def stratified_split(labels: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sorted indices of the rest and of a part that holds ``fraction`` of every class."""
    generator = torch.Generator().manual_seed(seed)
    part = []
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        part.append(members[: round(fraction * len(members))])
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.cat(part)] = True
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()


def _read_npz(path: Path, classes: int) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in NPZ_KEYS if key not in file]
            if missing:
                raise DatasetDamaged(f"{path} lacks {missing}; it needs {list(NPZ_KEYS)}")
            arrays = {key: file[key] for key in NPZ_KEYS}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DatasetDamaged):
            raise
        raise DatasetDamaged(f"{path} is damaged ({error}); replace or delete it") from error
    result: list[Tensor] = []
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        _check_arrays(path, part, images, labels, classes)
        result.append(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
        result.append(torch.from_numpy(labels.astype(np.int64)))
    return result[0], result[1], result[2], result[3]


def _check_arrays(
    path: Path, part: str, images: np.ndarray, labels: np.ndarray, classes: int
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise DatasetDamaged(
            f"{path}: {part}_images must be uint8 (N, 32, 32, 3), "
            f"found {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DatasetDamaged(f"{path}: {part}_labels must be {len(images)} integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetDamaged(f"{path}: {part}_labels must lie in 0 to {classes - 1}")


def _read_torchvision(name: str, data_dir: Path, download: bool) -> Arrays:
    import torchvision

    source = getattr(torchvision.datasets, TORCHVISION[name])
    try:
        parts = [source(data_dir, train=train, download=download) for train in (True, False)]
    except Exception as error:
        if not download and "not found" not in str(error):
            raise DatasetDamaged(f"{name} in {data_dir} is damaged: {error}") from error
        raise DatasetMissing(_advice(name, data_dir, str(error) if download else "")) from error
    result: list[Tensor] = []
    for part in parts:
        data = torch.as_tensor(part.data)
        images = data.unsqueeze(1) if data.dim() == 3 else data.permute(0, 3, 1, 2)
        result += [images.contiguous(), torch.as_tensor(part.targets, dtype=torch.int64)]
    return result[0], result[1], result[2], result[3]


def _advice(name: str, data_dir: Path, reason: str) -> str:
    layouts = {
        "cifar10": "cifar10.npz, or the folder cifar-10-batches-py of cifar-10-python.tar.gz",
        "cifar100": "cifar100.npz, or the folder cifar-100-python of cifar-100-python.tar.gz",
        "fashion_mnist": "the folder FashionMNIST/raw with its four idx files",
    }
    failed = f" and could not be downloaded ({reason})" if reason else ""
    return (
        f"{name} is not in {data_dir}{failed}. Put {layouts[name]} there, or name another folder "
        "with paths.data_dir=<folder> or the environment variable BNNBENCH_DATA; "
        "data/README.md describes the files"
    )
