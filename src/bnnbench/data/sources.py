"""Reads the small image sets: embedded, from the data folder, or downloaded by torchvision.

A set in the data folder is ``<name>.npz`` (images (N, H, W, C) uint8) or torchvision's own layout.
A download is unpacked and checked beside its place and moved there in one step: what has the name
of a set is whole.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from bnnbench.data.headers import check_npz
from bnnbench.data.known import SOURCES, DatasetDamaged, DatasetMissing, Source

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]
KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(name: str, data_dir: Path) -> Arrays:
    """Training images and labels, test images and labels of the set ``name``; no download.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,), training first.

    Raises:
        DatasetMissing: it is not in ``data_dir``.
        DatasetDamaged: a file there cannot be read or holds something else.
    """
    source = SOURCES[name]
    if not source.torchvision:
        return _digits()
    npz, folder = data_dir / f"{name}.npz", data_dir / source.folder
    if npz.exists():
        return _read_npz(npz, source)
    if folder.exists():
        return _read_torchvision(folder, source)
    raise DatasetMissing(_advice(name, data_dir))


def download(name: str, data_dir: Path) -> None:
    """Put the set ``name`` into ``data_dir`` unless something of that name is there.

    Raises:
        DatasetMissing: it cannot be downloaded, or the folder cannot be written.
    """
    source = SOURCES[name]
    place = data_dir / source.folder
    if not source.torchvision or (data_dir / f"{name}.npz").exists() or place.exists():
        return
    import torchvision

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=data_dir, prefix=f".{name}-") as part:
            getattr(torchvision.datasets, source.torchvision)(part, download=True)
            (Path(part) / source.folder).rename(place)
    except Exception as error:
        if not place.exists():  # else another process was faster
            raise DatasetMissing(_advice(name, data_dir, error)) from error


def stratified_split(labels: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sorted indices of the rest and of a part of ``count`` images that keeps the classes' shares.

    Images are shuffled, sorted by class and taken at even distances, so that no class is more than
    one image off its share. numpy guarantees this generator's stream: a split never changes.
    """
    shuffled = torch.from_numpy(np.random.RandomState(seed).permutation(len(labels)))
    shuffled = shuffled[labels[shuffled].argsort(stable=True)]
    place = torch.arange(len(labels))
    taken = (place + 1) * count // len(labels) > place * count // len(labels)
    return shuffled[~taken].sort().values, shuffled[taken].sort().values


def _digits() -> Arrays:
    """scikit-learn's 1797 handwritten digits, 8x8; a fixed stratified fifth is the test set."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)  # (1797, 64) in 0 to 16
    images = torch.from_numpy(np.rint(pixels * 15).astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(target.astype(np.int64))
    train, test = stratified_split(labels, 360)
    return images[train], labels[train], images[test], labels[test]


def _read_npz(path: Path, source: Source) -> Arrays:
    try:
        check_npz(path, KEYS)
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            arrays = [] if missing else [file[key] for key in KEYS]
    except Exception as error:  # the zip, its members or their headers: many kinds of errors
        raise DatasetDamaged(f"{path} cannot be read ({error}): replace or delete it") from error
    if missing:
        raise DatasetDamaged(f"{path} lacks {', '.join(missing)}; it needs {', '.join(KEYS)}")
    return (
        *_tensors(path, "train", arrays[0], arrays[1], source),
        *_tensors(path, "test", arrays[2], arrays[3], source),
    )


def _read_torchvision(folder: Path, source: Source) -> Arrays:
    import torchvision

    reader = getattr(torchvision.datasets, source.torchvision)
    try:
        train, test = (reader(folder.parent, train=train) for train in (True, False))
    except Exception as error:  # checksums, pickles, idx headers, missing files
        raise DatasetDamaged(
            f"{folder} is damaged or incomplete ({error}): it needs {source.files}; delete it to "
            "have it downloaded again"
        ) from error
    # CIFAR is (N, 32, 32, 3), Fashion-MNIST (N, 28, 28)
    images = [
        np.asarray(part.data).reshape(len(part.data), *part.data.shape[1:3], -1)
        for part in (train, test)
    ]
    return (
        *_tensors(folder, "train", images[0], np.asarray(train.targets), source),
        *_tensors(folder, "test", images[1], np.asarray(test.targets), source),
    )


def _tensors(
    path: Path, part: str, images: np.ndarray, labels: np.ndarray, source: Source
) -> tuple[Tensor, Tensor]:
    """Images (N, H, W, C) and labels (N,), checked and turned into tensors."""
    channels, height, width = source.shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels) or not len(images):
        raise DatasetDamaged(
            f"{path}: {part}_images must be uint8 (N, {height}, {width}, {channels}), "
            f"found {images.dtype} {images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DatasetDamaged(
            f"{path}: {part}_labels must be {len(images)} integers, "
            f"found {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= source.classes:
        raise DatasetDamaged(
            f"{path}: {part}_labels must lie in 0 to {source.classes - 1}, "
            f"found {labels.min()} to {labels.max()}"
        )
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return channels_first, torch.from_numpy(labels.astype(np.int64))


def _advice(name: str, data_dir: Path, reason: Exception | None = None) -> str:
    source = SOURCES[name]
    failed = f" and cannot be downloaded ({reason})" if reason else ""
    return (
        f"{name} is not in {data_dir}{failed}. Put {name}.npz or the folder {source.folder} "
        f"({source.files}) there, or name the folder that holds it with paths.data_dir=<folder> "
        "or the environment variable BNNBENCH_DATA; data/README.md describes the files"
    )
