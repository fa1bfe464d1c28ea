"""LightningDataModules of object detection sets in PASCAL VOC's layout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from bnnbench.data import kept, stamp, voc, voc_split, voc_tree
from bnnbench.data.detection_transforms import AUGMENTATIONS, BoxTransform, DetectionFiles
from bnnbench.data.file_data import FileData
from bnnbench.data.file_loader import ImageFiles
from bnnbench.data.known import check_choice, data_folder
from bnnbench.data.quoting import quoted_override
from bnnbench.data.shapes import Shapes
from bnnbench.data.spec import FileSpec
from bnnbench.data.usable import BAD_IMAGES
from bnnbench.data.voc_found import surveyed

INTERPOLATIONS = ("11point", "area")


class DetectionDataModule(FileData):
    """Images with boxes around objects, in a tree or several trees of VOC's layout.

    Batches are images float32 (B, 3, image_size, image_size) and a list of B dicts of ``boxes``
    float32 (n, 4), x1 y1 x2 y2 in pixels of that square, ``labels`` int64 (n,) from 1 on and
    ``difficult`` bool (n,). An image may have no object.

    Args:
        data_dir: where the sets are.
        folder: that the trees lie in, or the one tree: an absolute path, or one in ``data_dir`` or
            in the working folder.
        train, test: splits, ``<tree>/<split>`` or ``<split>`` of the one tree.
        classes: names of the objects: label i is the i-th from 1 on; numbers are names as well.
        augmentation: ``ssd`` (colours, zoom out, crop, flip), ``flip`` or ``none``.
        train_difficult: whether to train on difficult objects; evaluation always has them, marked.
        bad_boxes: ``error`` refuses boxes without area, ``drop`` leaves them out.
        bad_images: ``error`` refuses images that cannot be used, ``drop`` leaves them out.
        interpolation: rule of the precision that judges this set, ``11point`` or ``area``.
        task: ``detection``.
        eval_batch_size, **spec: see ``FileSpec``; every image is warped to a square of
            ``image_size`` pixels.

    Raises:
        ValueError: an argument out of range.
    """

    task = "detection"
    own = True  # the folder is a user's own: what is read of it is told
    parts: dict[str, tuple[Any, voc.Truths]]

    def __init__(
        self,
        data_dir: str | Path,
        folder: str,
        train: Sequence[str],
        test: Sequence[str],
        classes: Sequence[str],
        augmentation: str,
        train_difficult: bool,
        bad_boxes: str,
        interpolation: str,
        task: str,
        bad_images: str = "error",
        eval_batch_size: int = 32,
        **spec: Any,
    ) -> None:
        super().__init__(FileSpec(eval_batch_size=eval_batch_size, **spec))
        check_choice("task", task, (self.task,))
        check_choice("augmentation", augmentation, AUGMENTATIONS)
        check_choice("bad_boxes", bad_boxes, ("error", "drop"))
        check_choice("bad_images", bad_images, BAD_IMAGES)
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        self.root, self.keep = data_folder(folder, data_dir), kept.place(data_dir)
        self.splits = {"train": _split_names("train", train), "test": _split_names("test", test)}
        self.class_names = [str(name) for name in classes]
        self._check_classes()
        self.augmentation, self.train_difficult = augmentation, train_difficult
        self.rules = voc.Rules(bad_boxes, bad_images, self.keep)
        self.interpolation = interpolation

    def _check_classes(self) -> None:
        names, count = self.class_names, self.spec.num_classes
        if not names:
            splits = [*self.splits["train"], *self.splits["test"]]
            found = surveyed(self.root, splits, self.keep.parent).classes
            raise ValueError(
                f"dataset.classes is empty: leave it out, and the classes are those that "
                f"{self.root} holds objects of, or set {quoted_override('dataset.classes', found)}"
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"dataset.classes names a class twice: {twice!r}")
        if count != len(names):
            raise ValueError(
                f"dataset.num_classes={count}, but dataset.classes has {len(names)} names: "
                "leave num_classes to them"
            )

    def prepare_data(self) -> None:
        """Refuse splits that are not there, and write one that is made. Raises DatasetMissing."""
        for split in (*self.splits["train"], *self.splits["test"]):
            voc_tree.list_names(self.root, split, self.keep)
        voc_split.write(self.root, [*self.splits["train"], *self.splits["test"]], self.keep)

    def setup(self, stage: str | None = None) -> None:
        """Read and check all files once; raises DatasetMissing or DatasetDamaged."""
        if self.parts:
            return
        files = voc.read_parts(self.root, self.splits, self.class_names, self.rules)
        if both := len(set(files["train"][0]) & set(files["test"][0])):
            rank_zero_warn(f"{both} test images of {self.spec.name} are trained on as well")
        parts = {**self.hold_out(*files["train"]), "test": files["test"]}
        if not self.train_difficult:
            images, truths = parts["train"]
            parts["train"] = images, truths.without_difficult()
        self.parts = parts
        if self.own:
            self._tell()

    @rank_zero_only
    def _tell(self) -> None:
        """Say what is read, on the channel of the other messages: tables go to the other one."""
        counts = {"train": self.train_images, "test": self.test_images}
        counts["train"] += len(self.parts["val"][1]) if "val" in self.parts else 0
        told = [
            f"{counts[part]} images to {part} on ({', '.join(self.splits[part])})"
            for part in counts
        ]
        names = self.class_names
        told.append(f"{len(names)} classes: {', '.join(names[:8])}{', ...' if names[8:] else ''}")
        every = [*self.splits["train"], *self.splits["test"]]
        if rest := voc_tree.left_out(self.root, every, self.keep):
            told.append(f"left out: {', '.join(rest)}")
        print(f"{self.root}: {'; '.join(told)}", file=sys.stderr, flush=True)

    @cached_property
    def stamp(self) -> str:
        """Names and sizes of the images and XML files that the splits list."""
        return stamp.of_trees(self.root, self.splits, self.keep)

    def files(self, part: str, train: bool) -> ImageFiles:
        """The images of a part with their objects."""
        augmentation = self.augmentation if train else "none"
        transform = BoxTransform(self.spec.image_size, augmentation, self.spec.mean)
        return DetectionFiles(*self.parts[part], transform, self.spec.seed)


class VOCDataModule(DetectionDataModule):
    """PASCAL VOC itself: the years 2007 and 2012 are downloaded unless they are there."""

    own = False

    def prepare_data(self) -> None:
        """Download the years that are absent. Raises DatasetMissing where that fails."""
        voc_tree.download(self.root, [*self.splits["train"], *self.splits["test"]])
        super().prepare_data()


class ShapesDataModule(DetectionDataModule):
    """The generated set of ``shapes``, written into ``data_dir`` as a tree of VOC's layout.

    Args:
        generate: arguments of ``Shapes``; each set of them has a tree of its own.
        data_dir, options: those of ``DetectionDataModule``, without ``folder``.
    """

    own = False

    def __init__(self, generate: dict[str, Any], data_dir: str | Path, **options: Any) -> None:
        self.shapes = Shapes(**generate)
        folder = Path(data_dir).expanduser().absolute() / "shapes" / self.shapes.folder
        super().__init__(data_dir=data_dir, folder=str(folder), **options)

    def prepare_data(self) -> None:
        """Write the tree unless it is there."""
        self.shapes.write(self.root)
        super().prepare_data()


def _split_names(key: str, splits: Sequence[str]) -> list[str]:
    if isinstance(splits, str) or not splits:
        raise ValueError(f"dataset.{key}={splits}: give a list of splits, such as [trainval]")
    return list(splits)
