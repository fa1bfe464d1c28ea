"""What a trained network says of images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bnnbench.data.augmentation import evaluation_transform
from bnnbench.data.decoding import read_image
from bnnbench.runs.trained import Trained

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What is said of one image, the most probable first.

    Attributes:
        file: the image's.
        labels: names of classes.
        scores: of each its probability.
        boxes: of a detector the box of each, x1 y1 x2 y2 in pixels of the upright image; None of a
            classifier.
        reason: why the image cannot be read; empty where it can.
    """

    file: Path
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    boxes: tuple[tuple[float, ...], ...] | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As one line of JSON has it."""
        if self.reason:
            return {"file": str(self.file), "error": self.reason}
        rows = [
            {"label": name, "score": s} for name, s in zip(self.labels, self.scores, strict=True)
        ]
        if self.boxes is not None:
            rows = [row | {"box": list(box)} for row, box in zip(rows, self.boxes, strict=True)]
        return {"file": str(self.file), "predictions": rows}


def predict(
    trained: Trained, files: Sequence[Path], top: int = 5, score: float = 0.3
) -> Iterator[Prediction]:
    """What ``trained`` says of each image, in that order.

    Args:
        trained: the network.
        files: images of any size and kind.
        top: classes of an image at most; of a detector, boxes.
        score: least probability of a detector's box.
    """
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        read = {file: _read(file) for file in part}
        images = {file: image for file, image in read.items() if isinstance(image, Tensor)}
        said = dict(zip(images, _said(trained, list(images.values()), top, score), strict=True))
        for file in part:
            if file in said:
                yield Prediction(file, **said[file])
            else:
                yield Prediction(file, reason=str(read[file]))


def _read(file: Path) -> Tensor | str:
    """The image uint8 (3, H, W), or why there is none."""
    try:
        return read_image(str(file))
    except (ValueError, OSError) as error:
        return str(error)


@torch.no_grad()
def _said(
    trained: Trained, images: Sequence[Tensor], top: int, score: float
) -> list[dict[str, Any]]:
    if not images:
        return []
    outputs = trained(torch.stack([fitted(trained, image) for image in images]))
    if trained.task == "classification":
        best = outputs.softmax(1).topk(min(top, outputs.shape[1]))
        return [_classes(trained, *row) for row in zip(best.indices, best.values, strict=True)]
    found = trained.net.detect(outputs)  # pyright: ignore[reportCallIssue]
    sizes = [(image.shape[2], image.shape[1]) for image in images]
    return [_boxes(trained, b, s, top, score) for b, s in zip(found, sizes, strict=True)]


def fitted(trained: Trained, image: Tensor) -> Tensor:
    """An image uint8 (3, H, W) as the network's evaluation has it, uint8 (C, S, S)."""
    side = trained.image_size
    if trained.task == "detection":
        return F.resize(image, [side, side], antialias=True)
    if trained.crops:
        image = evaluation_transform(side)(image)
    elif image.shape[1:] != (side, side):
        image = F.center_crop(F.resize(image, [side], antialias=True), [side])
    return _grey(image) if trained.in_channels == 1 else image


def _grey(image: Tensor) -> Tensor:
    """Rec. 601's luma, uint8 (1, H, W); torchvision's makes grey a step darker."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True).round().to(torch.uint8)


def _classes(trained: Trained, indices: Tensor, values: Tensor) -> dict[str, Any]:
    names = tuple(trained.class_names[i] for i in indices.tolist())
    return {"labels": names, "scores": tuple(values.tolist())}


def _boxes(
    trained: Trained, found: dict[str, Tensor], size: tuple[int, int], top: int, score: float
) -> dict[str, Any]:
    best = found["scores"].argsort(descending=True, stable=True)[:top]
    best = best[found["scores"][best] >= score]
    scale = torch.tensor([*size, *size]) / trained.image_size
    boxes = found["boxes"][best] * scale
    return {
        "labels": tuple(trained.class_names[i - 1] for i in found["labels"][best].tolist()),
        "scores": tuple(found["scores"][best].tolist()),
        "boxes": tuple(tuple(round(v, 1) for v in box) for box in boxes.tolist()),
    }
