"""LightningDataModule of somebody's own images in class folders, with or without splits."""

from __future__ import annotations

import filecmp
import logging
import os
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from bnnbench.data import stamp
from bnnbench.data.folders import FolderDataModule, list_files
from bnnbench.data.known import DatasetDamaged, check_there
from bnnbench.data.survey import TEST_FRACTION, Layout, held_out, layout

log = logging.getLogger(__name__)
_say, _warn = rank_zero_only(log.info), rank_zero_only(log.warning)

Part = tuple[np.ndarray, Tensor]  # files as bytes (N,) and labels int64 (N,)


class ImageFolderDataModule(FolderDataModule):
    """Images in a folder's ``train/<class>/`` and ``test/<class>/``, or in its ``<class>/``.

    ``survey.layout`` says how splits may be called. Of a folder without one to test on, a part of
    each class is tested on, the same for every run.

    Args:
        test_fraction: that part, in (0, 1); None where the folder has a split to test on.
        **options: see ``FolderDataModule``.

    Raises:
        ValueError: an argument out of range, or one that does not fit the set.
    """

    def __init__(self, test_fraction: float | None, **options: Any) -> None:
        super().__init__(**options)
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise ValueError(f"dataset.test_fraction={test_fraction} must be in (0, 1)")
        self.test_fraction = test_fraction

    def prepare_data(self) -> None:
        """Nothing is downloaded: refuse a set that is not there. Raises DatasetMissing."""
        check_there(self.folder, self.data_dir)

    @cached_property
    def layout(self) -> Layout:
        """Where the images lie. Raises DatasetDamaged."""
        return layout(self.root)

    def listed(self) -> dict[str, Part]:
        """The parts of the set; names the classes."""
        found = self.layout
        self._check_fraction()
        self.class_names = list(found.classes)
        self.check_count()
        for name, reason in found.unread.items():
            _say("%s: %s is not read, %s", self.root.name, name, reason)
        files = list_files(self.root / found.train, found.classes)
        if found.test is None:
            assert self.test_fraction is not None
            train, test = parted(files, self.test_fraction)
            told = self.root / found.train, len(test[1]), len(files[1]), self.test_fraction
            _say(
                "%s has no split to test on: %d of %d images, %s of each class, are held out", *told
            )
        else:
            train, test = files, list_files(self.root / found.test, found.classes)
            self._check_apart(found.train, found.test, test[0])
        return {**self.hold_out(*train), "test": test}

    def _check_fraction(self) -> None:
        test = self.layout.test
        if test is not None and self.test_fraction is not None:
            raise ValueError(
                f"dataset.test_fraction={self.test_fraction}: {self.root} has images to test on in "
                f"{test}; leave test_fraction out"
            )
        if test is None and self.test_fraction is None:
            raise ValueError(
                f"{self.root} has no split to test on: give dataset.test_fraction={TEST_FRACTION}"
            )

    def _check_apart(self, train: str, test: str, files: np.ndarray) -> None:
        """Refuse test images that are all trained on, and warn of some. Raises DatasetDamaged."""
        start = len(os.fsencode(self.root / test)) + 1
        root = os.fsencode(self.root / train)
        both = [f for f in files.tolist() if _is_copy(os.path.join(root, f[start:]), f)]
        if len(both) == len(files):
            raise DatasetDamaged(
                f"{self.root}: every image of {test} is in {train} as well: put images there that "
                f"are not trained on, or delete {test} for a part of {train} to be tested on"
            )
        if both:
            told = os.fsdecode(both[0]), len(both) - 1
            _warn("%s is trained on as well, and %d more images of that split are", *told)

    @cached_property
    def stamp(self) -> str:
        """Names and sizes of the image files."""
        return stamp.of_folders(self.root, self.layout.splits)

    @property
    def measured_of(self) -> dict[str, Any]:
        """What tells which of the set's images are trained on, and how they are seen."""
        return super().measured_of | {"test_fraction": self.test_fraction}


def parted(files: Part, fraction: float) -> tuple[Part, Part]:
    """Files to train on and to test on, with each class's share, at least one, of each class.

    Raises DatasetDamaged where a class has one image alone.
    """
    names, labels = files
    # numpy guarantees this generator's stream: a split never changes
    shuffled = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    shuffled = shuffled[labels[shuffled].argsort(stable=True)]
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for of_class in shuffled.split(labels.bincount().tolist()):
        if len(of_class) < 2:
            raise DatasetDamaged(
                f"{os.fsdecode(names[of_class[0]])} is alone in its class: a class needs an image "
                "to train on and one to test on"
            )
        taken[of_class[: held_out(len(of_class), fraction)]] = True
    rest = ~taken
    return (names[rest.numpy()], labels[rest]), (names[taken.numpy()], labels[taken])


def _is_copy(first: bytes, second: bytes) -> bool:
    """Whether two files have the same content; the first need not exist."""
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False
