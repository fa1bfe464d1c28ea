"""LightningDataModule of images that are arrays: files of numpy's, or a set of torchvision's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional as F

from bnnbench.data import array_files, stamp, statistics
from bnnbench.data.array_sets import known_set
from bnnbench.data.array_survey import (
    FILES,
    channel_axis,
    located,
    read_labels,
    survey_of,
)
from bnnbench.data.image_folders import parted
from bnnbench.data.images import ImageDataModule
from bnnbench.data.known import DatasetDamaged, DatasetMissing
from bnnbench.data.pixels import as_bytes
from bnnbench.data.sources import Arrays
from bnnbench.data.spec import until_measured
from bnnbench.data.survey import TEST_FRACTION

log = logging.getLogger(__name__)

CHUNK = 4096  # images that are looked at together


class ArraysDataModule(ImageDataModule):
    """Images and labels in arrays, held on the device as uint8.

    Args:
        data_dir: where files are looked for first, and what torchvision downloads goes.
        mean, std: per channel, of pixels scaled to [0, 1]; ``auto`` measures them on the training
            images, and ``spec`` has them after ``setup``.
        file: an ``.npz`` with images and labels to train on, and perhaps to test on.
        images, labels, test_images, test_labels: or ``.npy`` files.
        torchvision: or a class of torchvision, of those in ``array_sets.SETS``.
        test_fraction: part of each class to test on where the set has none for that, by default a
            fifth.
        **options: see ``ImageDataModule``. ``image_size`` other than the images' resizes them.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
        DatasetMissing, DatasetDamaged: as ``array_survey.survey_of``.
    """

    def __init__(
        self,
        data_dir: str | Path,
        mean: Sequence[float] | str,
        std: Sequence[float] | str,
        in_channels: int,
        file: str | None = None,
        images: str | None = None,
        labels: str | None = None,
        test_images: str | None = None,
        test_labels: str | None = None,
        torchvision: str | None = None,
        test_fraction: float | None = None,
        **options: Any,
    ) -> None:
        self._unmeasured, given = until_measured(in_channels, mean, std)
        places = (file, images, labels, test_images, test_labels)
        self.source: dict[str, Any] = {"torchvision": torchvision, "data_dir": data_dir}
        self.source |= dict(zip(FILES, places, strict=True))
        self.test_fraction = test_fraction
        super().__init__(data_dir=data_dir, in_channels=in_channels, **given, **options)

    def check_set(self) -> None:
        """Refuse numbers that are not the set's. Raises ValueError."""
        found = self.survey = survey_of(self.source)
        for key, value in (("num_classes", len(found.classes)), ("in_channels", found.channels)):
            if (said := getattr(self.spec, key)) != value:
                raise ValueError(f"{self.spec.name} has {key}={value}, dataset.{key} says {said}")
        if found.parted and self.test_fraction is not None:
            raise ValueError(
                f"dataset.test_fraction={self.test_fraction}: {self.spec.name} has images to test "
                "on; leave test_fraction out"
            )

    def prepare_data(self) -> None:
        """Download a set of torchvision's unless it is there. Raises DatasetMissing."""
        if self.source["torchvision"] is not None:
            download(str(self.source["torchvision"]), self.data_dir)

    def _read(self) -> dict[str, tuple[Tensor, Tensor]]:
        arrays = read(self.source)
        self.stamp = stamp.of_arrays(arrays)
        self.class_names = list(self.survey.classes)
        size = self.spec.image_size
        images, labels, test_images, test_labels = arrays
        images, test_images = resized(images, size), resized(test_images, size)
        if not self.survey.parted:
            (rest, labels), (part, test_labels) = self._held_out(labels)
            images, test_images = images[rest], images[part]
        parts = self.hold_out(images, labels)
        if self._unmeasured:
            self._measure(parts["train"][0])
        return {**parts, "test": (test_images, test_labels)}

    def _held_out(self, labels: Tensor) -> Any:
        fraction = TEST_FRACTION if self.test_fraction is None else self.test_fraction
        rest, part = parted((np.arange(len(labels)), labels), fraction)
        rank_zero_only(log.info)(
            f"{self.spec.name} has no images to test on: {len(part[1])} of {len(labels)}, "
            f"dataset.test_fraction={fraction} of each class, are held out"
        )
        return rest, part

    def _measure(self, images: Tensor) -> None:
        found = statistics.of_batches(part / 255 for part in images.split(CHUNK))
        self.normalise(found, self._unmeasured)
        name, count = self.spec.name, len(images)
        rank_zero_only(log.info)(f"{name}: {found}, measured on {count} training images")


def read(source: Mapping[str, Any]) -> Arrays:
    """Training images and labels, test images and labels, of the set that a config tells.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,); of no image where there is no test part.

    Raises:
        DatasetMissing, DatasetDamaged: as ``survey_of``, or values that are no pixels or labels.
    """
    classes = survey_of(source).classes
    if (name := source.get("torchvision")) is not None:
        return _read_torchvision(str(name), Path(str(source["data_dir"])).expanduser())
    arrays = located(source)
    whole, top = _images(arrays.images, None)
    labels = read_labels(arrays.labels)
    values = np.unique(labels)
    parts = [whole, _indices(labels, values, arrays.labels.name, classes)]
    if arrays.test_images is None or arrays.test_labels is None:
        return whole, parts[1], whole[:0], parts[1][:0]
    test, _ = _images(arrays.test_images, top)
    test_labels = read_labels(arrays.test_labels)
    if len(test_labels) != len(test):
        raise DatasetDamaged(
            f"{arrays.test_images.name} holds {len(test)} images and {arrays.test_labels.name} "
            f"{len(test_labels)} labels"
        )
    return whole, parts[1], test, _indices(test_labels, values, arrays.test_labels.name, classes)


def _images(array: array_files.Array, top: float | None) -> tuple[Tensor, float]:
    found = array_files.read(array)
    axis = channel_axis(found.shape, array.name)
    pixels, top = as_bytes(found, array.name, top)
    tensor = torch.from_numpy(pixels)
    if axis is None:
        return tensor[:, None], top
    return (tensor if axis == 1 else tensor.permute(0, 3, 1, 2)).contiguous(), top


def _indices(labels: np.ndarray, values: np.ndarray, name: str, classes: Sequence[str]) -> Tensor:
    """Labels as numbers of their classes."""
    unknown = np.setdiff1d(labels, values)
    if len(unknown):
        raise DatasetDamaged(
            f"{name} holds {unknown.tolist()[0]}, which no training image is of; there are "
            f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"
        )
    return torch.from_numpy(np.searchsorted(values, labels).astype(np.int64))


def resized(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) uint8 as squares of ``size`` pixels, antialiased."""
    if tuple(images.shape[2:]) == (size, size) or len(images) == 0:
        return images if len(images) else images.new_zeros(0, images.shape[1], size, size)
    parts = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        for part in images.split(CHUNK)
    ]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])


def download(name: str, data_dir: Path) -> None:
    """Put a set of torchvision's into ``data_dir`` unless it is there.

    Raises:
        DatasetMissing: it cannot be downloaded, or the folder cannot be written.
    """
    known = known_set(name)
    if all((data_dir / file).exists() for file in known.files):
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        label = name.replace("/", "_")
        with TemporaryDirectory(dir=data_dir, prefix=f".{label}-") as folder:
            for part in known.parts:
                _opened(name, Path(folder), part, download=True)
            for file in known.files:
                (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
                if not (data_dir / file).exists():  # another process may be faster
                    (Path(folder) / file).rename(data_dir / file)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise DatasetMissing(
            f"dataset.torchvision={name}: {' and '.join(known.files)} is not in {data_dir} and "
            f"cannot be downloaded ({reason[0] if reason else type(error).__name__}): put it there "
            "as torchvision does, or name the folder that holds it with paths.data_dir=<folder>"
        ) from error


def _opened(name: str, root: Path, part: Mapping[str, Any], download: bool) -> Any:
    import torchvision

    kind = getattr(torchvision.datasets, name.partition("/")[0])
    return kind(root, **known_set(name).options, **part, download=download)


def _read_torchvision(name: str, data_dir: Path) -> Arrays:
    known = known_set(name)
    if missing := [file for file in known.files if not (data_dir / file).exists()]:
        raise DatasetMissing(f"dataset.torchvision={name}: {data_dir} has no {missing[0]}")
    found: list[Tensor] = []
    for part in known.parts:
        try:
            opened = _opened(name, data_dir, part, download=False)
        except Exception as error:  # checksums, headers, missing files
            raise DatasetDamaged(
                f"dataset.torchvision={name}: {data_dir / known.files[0]} is damaged or incomplete "
                f"({error}); delete it to have it downloaded again"
            ) from error
        found += _tensors(name, opened)
    return (*found, *(tensor[:0] for tensor in found[: 4 - len(found)]))  # pyright: ignore


def _tensors(name: str, opened: Any) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,) of what a class of torchvision has read."""
    known = known_set(name)
    images = np.asarray(opened.data)
    labels = opened.labels if hasattr(opened, "labels") else opened.targets
    labels = np.asarray(labels).astype(np.int64) - known.first
    axis = channel_axis(images.shape, name)
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    tensor = tensor[:, None] if axis is None else tensor
    tensor = tensor.permute(0, 3, 1, 2).contiguous() if axis == 3 else tensor
    whole = tensor.dtype == torch.uint8 and tuple(tensor.shape[1:]) == known.shape
    if (
        not whole
        or len(labels) != len(tensor)
        or not 0 <= labels.min() <= labels.max() < len(known.names)
    ):
        raise DatasetDamaged(
            f"dataset.torchvision={name}: its files hold other images or labels than the set's"
        )
    return tensor, torch.from_numpy(labels)
