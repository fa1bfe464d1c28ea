"""Average precision of PASCAL VOC, as its devkit counts it.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and the
devkit of VOC 2007 (11 points) and of VOC 2010-2012 (area). COCO's metric differs in two rules: a
detection takes the best truth that is still free, and an object marked difficult ("crowd") forgives
every detection that lies inside it.

What we changed: recall is compared with 0, 0.1, ..., 1 in integers, so that 3 of 10 truths reach
0.3, which sums of 0.1 miss; and the devkit's extra pixel in the IoU is an option, off by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

INTERPOLATIONS = ("11point", "area")
PREDICTION_KEYS = ("boxes", "scores", "labels")
TARGET_KEYS = ("boxes", "labels")
STATES = {
    "scores": torch.float32,
    "labels": torch.int64,
    "hits": torch.uint8,
    "truths": torch.int64,
}


def _read_image(name: str, image: Any, keys: Sequence[str]) -> dict[str, Tensor]:
    """Those entries of a checked image that the metric uses, on the CPU."""
    if not isinstance(image, Mapping):
        kind = type(image).__name__
        raise ValueError(f"{name} is a {kind}: give a list with one dictionary an image")
    if missing := [key for key in keys if key not in image]:
        raise ValueError(f"{name} lacks {missing}: each image needs {list(keys)}")
    used = {key: image[key] for key in (*keys, "difficult") if key in image}
    if wrong := [key for key, value in used.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{name}: {wrong} must be tensors: convert them with torch.as_tensor")
    _check_tensors(name, used)
    return {key: value.detach().cpu() for key, value in used.items()}


def _check_tensors(name: str, image: Mapping[str, Tensor]) -> None:
    count = image["labels"].numel()
    for key, value in image.items():
        shape = (count, 4) if key == "boxes" else (count,)
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name}[{key!r}] has shape {tuple(value.shape)} beside {count} labels: it must be "
                f"{shape} (without boxes: boxes (0, 4), the others (0,))"
            )
    kind = image["labels"].dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise ValueError(f"{name}['labels'] are {kind}: convert them to integers with .long()")


def _areas(corners: Tensor, extra: int) -> Tensor:
    return (corners[..., 2:] - corners[..., :2] + extra).clamp_min(0).prod(-1)


def _overlaps(boxes: Tensor, truths: Tensor, extra: int) -> Tensor:
    """IoU (n, m) of boxes (n, 4) and (m, 4); widths and heights are ``extra`` pixels larger."""
    low = torch.maximum(boxes[:, None, :2], truths[:, :2])  # (n, m, 2)
    high = torch.minimum(boxes[:, None, 2:], truths[:, 2:])
    shared = _areas(torch.cat((low, high), -1), extra)
    union = _areas(boxes, extra)[:, None] + _areas(truths, extra) - shared
    return shared / union  # nan of two empty boxes, which no threshold lets pass


def _match(overlaps: Tensor, difficult: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Which detections of an image are hits, and which of them count.

    Args:
        overlaps: (n, m) IoU with each truth, negative for another class; rows by falling score.
        difficult: (m,) bool.

    Returns:
        hits (n,): the first detection of each truth.
        counted (n,): false for the detections of a difficult truth.
    """
    count, truths = overlaps.shape
    if truths == 0:
        return torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    best, truth = overlaps.max(dim=1)  # the first of equal truths
    found = best >= threshold
    rank = torch.arange(count)
    first = torch.full((truths,), count).scatter_reduce(0, truth[found], rank[found], "amin")
    return first[truth] == rank, ~(found & difficult[truth])


def _precision_recall(hits: Tensor, truths: int) -> tuple[Tensor, Tensor]:
    found = hits.cumsum(0)
    return found.double() / torch.arange(1, len(hits) + 1), found.double() / truths


def _average_precision(hits: Tensor, truths: int, interpolation: str) -> Tensor:
    """AP of hits (k,) by falling score; the envelope is the best precision from a rank onwards."""
    precision, _ = _precision_recall(hits, truths)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    if interpolation == "area":  # each hit adds 1 / truths to the recall
        return envelope[hits].sum() / truths
    reached = torch.searchsorted(10 * hits.cumsum(0), truths * torch.arange(11))
    return F.pad(envelope, (0, 1))[reached].sum() / 11  # 0 where the recall is never reached


class VOCAveragePrecision(Metric):
    """Average precision of PASCAL VOC, for each class and its mean over classes.

    In each class, detections are taken by falling score, equal scores in the order of ``update``.
    Each belongs to the truth of its image and class with which its IoU is largest. If that IoU is
    at least ``iou_threshold``, the first detection of a truth is a hit, later ones are false, and
    detections of a difficult truth do not count at all. All others are false. Difficult truths do
    not count in the recall either.

    Images are matched in ``update``; what is kept are three numbers a detection (scores in float32)
    and the labels of the truths. Processes gather them, so any split of the images gives the same
    result, processes without any included, except for the order of equal scores from different
    processes. Each image must be read once: a sampler that repeats images would count them twice.
    A ``MetricCollection`` of several thresholds needs ``compute_groups=False``: torchmetrics takes
    them for one metric if they agree on the first batch.

    Args:
        iou_threshold: smallest IoU of a hit, in (0, 1].
        interpolation: ``11point`` (VOC 2007), the mean over the recalls 0, 0.1, ..., 1 of the best
            precision at that recall or more; or ``area`` (from VOC 2010), the area under this
            envelope.
        plus_one: corners are pixels that belong to the box, as in the devkit: widths and heights
            are one larger in the IoU.

    Raises:
        ValueError: for a threshold or an interpolation that does not exist.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    scores: list[Tensor]
    labels: list[Tensor]
    hits: list[Tensor]
    truths: list[Tensor]

    def __init__(
        self,
        iou_threshold: float = 0.5,
        interpolation: Literal["11point", "area"] = "11point",
        plus_one: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold={iou_threshold}: choose a number in (0, 1]")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={interpolation!r}: choose one of {INTERPOLATIONS}")
        self.iou_threshold = iou_threshold
        self.interpolation = interpolation
        self.plus_one = plus_one
        for name in STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, preds: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]
    ) -> None:
        """Match the detections of some images; entry i of both lists is the same image.

        Args:
            preds: for each image ``boxes`` (n, 4) as x1, y1, x2, y2, ``scores`` (n,) and integer
                ``labels`` (n,).
            targets: for each image ``boxes`` (m, 4), integer ``labels`` (m,) and, if some objects
                are difficult, ``difficult`` (m,), 0 or 1.

        Raises:
            ValueError: for lists of different lengths, missing keys and wrong shapes or types;
                then no image of this call counts.
        """
        if len(preds) != len(targets):
            raise ValueError(
                f"{len(preds)} preds and {len(targets)} targets: give one of each for every image, "
                "with empty tensors where nothing was detected"
            )
        predicted = [_read_image(f"preds[{i}]", x, PREDICTION_KEYS) for i, x in enumerate(preds)]
        true = [_read_image(f"targets[{i}]", x, TARGET_KEYS) for i, x in enumerate(targets)]
        for pred, target in zip(predicted, true, strict=True):
            self._add(pred, target)

    def _add(self, pred: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        scores, order = pred["scores"].to(STATES["scores"]).sort(descending=True, stable=True)
        boxes, labels = pred["boxes"][order].double(), pred["labels"][order].long()
        classes = target["labels"].long()
        difficult = target.get("difficult", torch.zeros_like(classes)).bool()
        overlaps = _overlaps(boxes, target["boxes"].double(), int(self.plus_one))
        overlaps = overlaps.masked_fill(labels[:, None] != classes, -1)
        hits, counted = _match(overlaps, difficult, self.iou_threshold)
        self.scores.append(scores[counted].to(self.device))
        self.labels.append(labels[counted].to(self.device))
        self.hits.append(hits[counted].to(self.device, STATES["hits"]))
        self.truths.append(classes[~difficult].to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Give lists without images a tensor of their type, then gather: all ranks must agree."""
        for name, dtype in STATES.items():
            if len(getattr(self, name)) == 0:
                setattr(self, name, [torch.zeros(0, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def _ranked(self) -> dict[int, tuple[Tensor, int]]:
        """For each class hits (k,) by falling score, and how many truths count."""
        scores, labels, hits, truths = (dim_zero_cat(getattr(self, name)).cpu() for name in STATES)
        order = scores.argsort(descending=True, stable=True)
        labels, hits = labels[order], hits[order].bool()
        classes, counts = truths.unique(return_counts=True)
        return {
            label: (hits[labels == label], count)
            for label, count in zip(classes.tolist(), counts.tolist(), strict=True)
        }

    def compute(self) -> dict[str, Any]:
        """Average precision over all images of all processes.

        Returns:
            ``ap``: {label: float64 scalar on the CPU, in [0, 1]} of the classes with a truth that
            is not difficult; ``map``: their mean, nan if there is no such class.
        """
        ap = {
            label: _average_precision(hits, truths, self.interpolation)
            for label, (hits, truths) in self._ranked().items()
        }
        values = torch.stack(list(ap.values())) if ap else torch.empty(0, dtype=torch.float64)
        return {"map": values.mean(), "ap": ap}

    def curves(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Precision (k,) and recall (k,) of each class in ``ap`` down to each detection, for plots.

        In order of falling score, without interpolation, float64 on the CPU. Processes gather:
        all of them must call it.
        """
        with self.sync_context(self.dist_sync_fn, should_sync=self.sync_on_compute):
            ranked = self._ranked()
        return {label: _precision_recall(*ranking) for label, ranking in ranked.items()}
