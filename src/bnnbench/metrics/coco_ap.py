"""COCO's average precision by torchmetrics, for processes that hold different numbers of images."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision


class COCOAveragePrecision(MeanAveragePrecision):
    """torchmetrics' metric over pycocotools; ``map`` is the mean over the IoUs 0.5, 0.55 ... 0.95.

    Its own synchronisation gathers image by image and so needs as many images on every rank;
    evaluation shards may differ by one. What COCO gives as -1, because there is nothing to find, is
    nan, as in VOC's metric.
    """

    def __init__(self) -> None:
        super().__init__(backend="pycocotools")
        self.warn_on_many_detections = False  # COCO's own limit is 100

    def compute(self) -> dict[str, Tensor]:
        """torchmetrics' dictionary; nan for each mean over nothing."""
        found = super().compute()
        return {
            name: torch.where(value < 0, torch.nan, value) if value.is_floating_point() else value
            for name, value in found.items()
        }

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        for name in self._reductions:
            own = [value.cpu() for value in getattr(self, name)]
            ranks: list[Any] = [None] * dist.get_world_size(process_group)
            dist.all_gather_object(ranks, own, group=process_group)
            setattr(self, name, [value.to(self.device) for part in ranks for value in part])
