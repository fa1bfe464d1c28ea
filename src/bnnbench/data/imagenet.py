"""ImageNet's own classes and numbers of images, and whether a folder holds them as it should.

The usual trap is the validation set: its archive has all images side by side, and who sorts them by
a list that numbers the classes otherwise gets chance accuracy without a complaint. The WordNet ids
are timm's list, sorted as torchvision numbers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from bnnbench.data import listing
from bnnbench.data.known import DatasetDamaged

CLASSES = 1000
IMAGES = {"train": 1_281_167, "val": 50_000}
# Labels of ILSVRC2012_val_00000001.JPEG and so on.
FIRST_LABELS = (65, 970, 230, 809, 516, 57)
SORT = (
    "with ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_img_{split}.tar in {root}, "
    "torchvision.datasets.ImageNet('{root}', '{split}') makes them, see docs/imagenet.md"
)


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The 1000 class folders in the order of their labels."""
    file = resources.files("timm.data._info").joinpath("imagenet_synsets.txt")
    return tuple(file.read_text(encoding="utf-8").split())


def check_sorted(root: Path, split: str) -> None:
    """Refuse a split whose images lie side by side. Raises DatasetDamaged."""
    folder = root / split
    found = listing.listed(folder)
    if found.images and not found.folders:
        raise DatasetDamaged(
            f"{folder} holds {len(found.images)} images side by side, it needs a folder for each "
            f"class, {split}/<class>/*.JPEG: {SORT.format(root=root, split=split)}"
        )


def is_meant(classes: Sequence[str], num_classes: int) -> bool:
    """Whether ImageNet itself is asked for and most of its class folders are there."""
    return num_classes == CLASSES and 2 * len({*classes} & {*wordnet_ids()}) > CLASSES


def check_ids(root: Path, classes: Mapping[str, Sequence[str]], num_classes: int) -> None:
    """Refuse splits that lack some of ImageNet's classes, or have others besides.

    A tree of a thousand other classes is warned of. Raises DatasetDamaged.
    """
    if num_classes != CLASSES:
        return
    ids = {*wordnet_ids()}
    for split, names in classes.items():
        missing, foreign = sorted(ids - {*names}), sorted({*names} - ids)
        if is_meant(names, num_classes) and (missing or foreign):
            parts = [("lacks", missing)] if missing else []
            parts += [("has besides", foreign)] if foreign else []
            told = " and ".join(f"{verb} {_listed(found)}" for verb, found in parts)
            raise DatasetDamaged(
                f"{root / split} {told}, of ImageNet's {CLASSES} class folders: "
                f"{SORT.format(root=root, split=split)}; a part that is meant is read with "
                "dataset.num_classes=<class folders>"
            )
        if len(names) == CLASSES and not is_meant(names, num_classes):
            rank_zero_warn(
                f"{root / split} holds {CLASSES} classes that are not ImageNet's WordNet ids, such "
                f"as {names[0]}: results of it are not to be compared with ImageNet's"
            )


def check_images(root: Path, files: Mapping[str, np.ndarray]) -> None:
    """Refuse validation images that are not all there or in others' folders; warn of training ones.

    Args:
        root: of the set, with all of ImageNet's classes.
        files: image files as bytes (N,), by split.

    Raises:
        DatasetDamaged: what the validation set lacks.
    """
    for split, expected in IMAGES.items():
        if (count := len(files[split])) == expected:
            continue
        told = f"{root / split} holds {count:,} images, ImageNet's has {expected:,}"
        if split == "val":
            raise DatasetDamaged(
                f"{told}: unpack it again, {SORT.format(root=root, split=split)}; for a part that "
                "is meant use dataset=image_folder"
            )
        rank_zero_warn(f"{told}: results are not those of all of ImageNet")
    places = {path.rpartition(b"/")[2]: path for path in files["val"].tolist()}
    for number, label in enumerate(FIRST_LABELS, 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        path = places.get(name.encode())
        if path is not None and (is_in := _folder(path)) != wordnet_ids()[label]:
            raise DatasetDamaged(
                f"{root / 'val'} has {name} in {is_in}, its class is {wordnet_ids()[label]}: the "
                f"labels are in another order; sort it again, {SORT.format(root=root, split='val')}"
            )


def _folder(path: bytes) -> str:
    """The class folder that a file lies in, perhaps one further down."""
    found = re.findall(rb"n\d{8}(?=/)", path)
    return found[-1].decode() if found else Path(path.decode(errors="replace")).parent.name


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
