"""What a detector sees: boxes over test images and precision-recall curves, after the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from bnnbench.callbacks.detections import Boxes, Picture, draw_boxes, draw_precision_recall


class DetectionPictures(L.Callback):
    """Writes ``boxes.png`` and ``precision_recall.png`` of a detector's final evaluation.

    The run's loggers are given both. Other tasks have no such pictures.

    Args:
        folder: the run's; the pictures go to its ``pictures``.
        images: how many of the first images are drawn.
        boxes: how many detections of an image are drawn at most, those of the highest scores.
        score: least score of a detection that is drawn.
    """

    def __init__(
        self, folder: str | Path, images: int = 8, boxes: int = 10, score: float = 0.2
    ) -> None:
        if images < 1:
            raise ValueError(f"callbacks.pictures.images={images}: at least 1, or pictures=null")
        self.folder, self.images = Path(folder) / "pictures", images
        self.boxes, self.score = boxes, score
        self._pictures: list[Picture] = []

    def _collect(self, trainer: L.Trainer, pl_module: Any, found: Any, batch: Any) -> None:
        if pl_module.task != "detection" or trainer.state.fn == "fit":
            return
        missing = self.images - len(self._pictures)
        for image, target, boxes in list(zip(*batch, found, strict=True))[:missing]:
            best = boxes["scores"].argsort(descending=True, stable=True)[: self.boxes]
            shown = best[boxes["scores"][best] >= self.score]
            detections = Boxes(*(_array(boxes[k][shown]) for k in ("boxes", "labels", "scores")))
            objects = Boxes(_array(target["boxes"]), _array(target["labels"]))
            self._pictures.append(Picture(_pixels(trainer, image), objects, detections))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._collect(trainer, pl_module, outputs, batch)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._collect(trainer, pl_module, outputs, batch)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._draw(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Before the module's own hook, which resets the metric."""
        if pl_module.task != "detection" or trainer.state.fn == "fit":
            return
        metric, names = pl_module.average_precision, pl_module.classes
        curves = {names[label - 1]: pair for label, pair in metric.curves().items()}
        ap = {names[label - 1]: float(value) for label, value in metric.compute()["ap"].items()}
        pictures, self._pictures = self._pictures, []
        if not trainer.is_global_zero:
            return
        arrays = {name: (_array(p), _array(r)) for name, (p, r) in curves.items()}
        draw_precision_recall(arrays, ap, self.folder / "precision_recall")
        draw_boxes(pictures, names, self.folder / "boxes")


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _pixels(trainer: Any, image: Tensor) -> np.ndarray:
    """The image as it was before normalisation, (H, W, 3) in [0, 1]."""
    data = trainer.datamodule
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.spec.mean, data.spec.std))
    return _array((image.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0))
