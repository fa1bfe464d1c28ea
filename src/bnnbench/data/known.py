"""What is known of data sets without reading them: names, files, classes.

Free of torch and numpy: a sweep looks at the data of its cells before it knows that any will run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# torchvision's IMG_EXTENSIONS, whose import would load torch, and other endings of these kinds.
IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ".jpe", ".jfif", ".gif", ".pbm", ".pnm", ".avif",
)  # fmt: skip
FOLDERS = {"train": "train", "test": "val"}  # ImageNet's labelled validation set is the test set
CORNERS = ("xmin", "ymin", "xmax", "ymax")  # a box's tags in an XML file

JOBS = "BNNBENCH_JOBS"  # environment: how many jobs of a sweep run side by side on this machine


class DatasetMissing(FileNotFoundError):
    """The data set is not in the data folder and cannot be downloaded."""


class DatasetDamaged(ValueError):
    """A file of the data set cannot be used."""


class BadFile(DatasetDamaged):
    """One file that cannot be used.

    Args:
        file: which.
        what: is wrong with it, in words that follow its name.
        advice: what to do about it.
    """

    def __init__(self, file: str | Path, what: str, advice: str) -> None:
        super().__init__(f"{file}{what}; {advice}")
        self.file, self.what, self.advice = file, what, advice


@dataclass(frozen=True)
class Source:
    """A small set: image shape (C, H, W), class names in the order of labels, torchvision's names.

    Attributes:
        shape: an image's.
        names: the classes'.
        torchvision: class that downloads and reads it; empty where the set is embedded.
        folder: where that class keeps its files.
        files: what the folder holds, for messages.
    """

    shape: tuple[int, int, int]
    names: tuple[str, ...]
    torchvision: str = ""
    folder: str = ""
    files: str = ""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.names)


CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
SOURCES = {
    "digits": Source((1, 8, 8), tuple("0123456789")),
    "cifar10": Source(
        (3, 32, 32),
        tuple(CIFAR10.split()),
        "CIFAR10",
        "cifar-10-batches-py",
        "unpacked cifar-10-python.tar.gz",
    ),
    "cifar100": Source(
        (3, 32, 32),
        tuple(CIFAR100.split()),
        "CIFAR100",
        "cifar-100-python",
        "unpacked cifar-100-python.tar.gz",
    ),
    "fashion_mnist": Source(
        (1, 28, 28),
        FASHION,
        "FashionMNIST",
        "FashionMNIST",
        "raw/ with the four unpacked idx files",
    ),
}


def files_of(name: str, data_dir: Path) -> list[Path]:
    """The files that the small set ``name`` would be read from; none where it is not there.

    An embedded set has none either.
    """
    source = SOURCES[name]
    npz = data_dir / f"{name}.npz"
    if not source.torchvision:
        return []
    if npz.exists():
        return [npz]
    return sorted(path for path in (data_dir / source.folder).rglob("*") if path.is_file())


def set_name(text: str, where: str) -> str:
    """``text`` as one word. Raises ValueError, which says ``where`` it is from, if none is left."""
    if name := re.sub(r"[^\w-]+", "_", text).strip("_-"):
        return name
    raise ValueError(f"{where} gives the set no name: add dataset.name=<name>")


def data_folder(folder: object, data_dir: str | Path) -> Path:
    """Where the folder of a set lies: an absolute path, in the data folder, or in the working one.

    The first that is there; one that is in neither belongs into the data folder. What starts with
    ``./`` or ``../`` is meant from the working folder.
    """
    places = folder_places(folder, data_dir)
    return next((place for place in places if place.exists()), _inside(folder, data_dir))


def folder_places(folder: object, data_dir: str | Path) -> list[Path]:
    """Where ``data_folder`` looks, each place once."""
    inside, here = _inside(folder, data_dir), _inside(folder, Path.cwd())
    typed_from_here = re.match(r"\.\.?(/|$)", str(folder)) is not None
    return list(dict.fromkeys((here, inside) if typed_from_here else (inside, here)))


def check_there(folder: object, data_dir: str | Path) -> None:
    """Refuse a folder that is in neither place. Raises DatasetMissing."""
    if not data_folder(folder, data_dir).exists():
        places = " nor ".join(map(str, folder_places(folder, data_dir)))
        raise DatasetMissing(
            f"dataset.folder={folder}: there is no {places}; give an absolute path, or one in the "
            "data folder or in the folder where you type this"
        )


def _inside(folder: object, data_dir: str | Path) -> Path:
    # without .., so that it has a name
    return Path(os.path.abspath(Path(data_dir).expanduser() / Path(str(folder)).expanduser()))


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse what is not among the choices. Raises ValueError."""
    if value not in choices:
        raise ValueError(f"dataset.{key}={value}: choose from {', '.join(choices)}")


def check_whole(key: str, value: int, least: int, reason: str) -> None:
    """Refuse what is not a whole number of at least ``least``. Raises ValueError."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"dataset.{key}={value}: {reason}")
