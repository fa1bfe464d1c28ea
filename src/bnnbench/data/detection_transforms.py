"""Decoded images together with their boxes: augmented, warped to a square, put into batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from bnnbench.data.file_loader import Batch, ImageFiles
from bnnbench.data.known import DatasetDamaged

AUGMENTATIONS = ("ssd", "flip", "none")
KEYS = ("boxes", "labels", "difficult")
Target = dict[str, Tensor]  # boxes float32 (n, 4), labels int64 (n,), difficult bool (n,)


def collate(samples: list[tuple[Tensor, Target]]) -> Batch:
    """Images stacked, their objects in a row each: workers send few tensors, not three an image."""
    images, targets = zip(*samples, strict=True)
    packed: dict[str, Any] = {key: torch.cat([t[key] for t in targets]) for key in KEYS}
    return torch.stack(images), packed | {"counts": [len(t["labels"]) for t in targets]}


class DetectionFiles(ImageFiles):
    """Image files whose truths are ``voc.Truths``."""

    def collate(self, examples: list[Any]) -> Batch:
        """As ``collate`` of this file."""
        return collate(examples)

    def truth(self, index: int, image: Tensor) -> Target:
        """The objects of an image, boxes in its pixels; raises DatasetDamaged."""
        truths, size = self.truths, (image.shape[1], image.shape[2])
        start, count = int(truths.counts[:index].sum()), int(truths.counts[index])
        expected = tuple(truths.sizes[index].tolist())
        if size != expected:
            raise DatasetDamaged(
                f"{os.fsdecode(self.files[index])} has {size[1]} x {size[0]} pixels, its XML file "
                f"says {expected[1]} x {expected[0]}: correct the one that is wrong"
            )
        rows = slice(start, start + count)
        boxes = tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
            truths.boxes[rows], format="XYXY", canvas_size=size
        )
        return {"boxes": boxes, "labels": truths.labels[rows], "difficult": truths.difficult[rows]}

    def unpack(self, truths: dict[str, Any]) -> list[Target]:
        """The objects of a batch, image by image."""
        columns = [truths[key].split(truths["counts"]) for key in KEYS]
        return [dict(zip(KEYS, image, strict=True)) for image in zip(*columns, strict=True)]


class BoxTransform:
    """Augments an image with its boxes and warps both to a square.

    Args:
        size: pixels of the square.
        augmentation: ``ssd`` is SSD's (arXiv 1512.02325, in the order of its Caffe code): colours,
            zoom out up to 4 times on the mean colour, a crop that keeps the objects with their
            centre inside, flip. ``flip`` and ``none``: as named.
        mean: per channel, of pixels scaled to [0, 1]: the colour around a zoomed out image.
    """

    def __init__(self, size: int, augmentation: str, mean: Sequence[float]) -> None:
        steps: list[v2.Transform] = []
        if augmentation == "ssd":
            colour = [round(255 * value) for value in mean]
            fill: Any = {tv_tensors.Image: colour, "others": 0}
            steps += [v2.RandomPhotometricDistort(p=0.5), v2.RandomZoomOut(fill), CropToObjects()]
        if augmentation != "none":
            steps.append(v2.RandomHorizontalFlip())
        steps.append(v2.Resize((size, size), antialias=True))
        if augmentation == "ssd":
            # clamped: Resize puts edges a rounding error past the border, and such boxes would go
            steps += [
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(labels_getter=_with_each_box),
            ]
        self.steps = v2.Compose(steps)

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Augment an image uint8 (3, H, W) and its objects, without those that are cropped off."""
        image, target = self.steps(tv_tensors.Image(image), target)
        plain = {key: value.as_subclass(Tensor) for key, value in target.items()}
        return image.as_subclass(Tensor), plain


class CropToObjects(v2.RandomIoUCrop):
    """SSD's crop; an image without objects stays whole, where the search for them is in vain."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Where to crop; empty for the whole image."""
        boxes = next(entry for entry in flat_inputs if isinstance(entry, tv_tensors.BoundingBoxes))
        return super().make_params(flat_inputs) if len(boxes) else {}


def _with_each_box(sample: tuple[Tensor, Target]) -> tuple[Tensor, Tensor]:
    """What goes with a box that is left out; a function by name, which workers can be sent."""
    return sample[1]["labels"], sample[1]["difficult"]
