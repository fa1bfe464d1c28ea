"""COCO's metric over processes with different numbers of images."""

from pathlib import Path

import pytest
import torch

from bnnbench.metrics.coco_ap import COCOAveragePrecision

from .processes import answers


def images() -> list[tuple[dict, dict]]:
    """Five images with a good, a shifted or no detection."""
    torch.manual_seed(0)
    found = []
    for number in range(5):
        boxes = torch.rand(3, 2).mul(50).repeat(1, 2) + torch.tensor([0.0, 0, 30, 20])
        labels = torch.arange(3) % 2 + 1
        true = {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([0, 0, number % 2])}
        kept = slice(0, number % 4)
        detections = {"boxes": boxes[kept] + number, "scores": torch.rand(3)[kept]}
        found.append((detections | {"labels": labels[kept]}, true))
    return found


def score(part: list[tuple[dict, dict]]) -> float:
    metric = COCOAveragePrecision()
    for detections, true in part:
        metric.update([detections], [true])
    return float(metric.compute()["map"])


def process(rank: int) -> float:
    return score(images()[rank::2])


def test_two_processes_with_three_and_two_images_answer_as_one(tmp_path: Path) -> None:
    alone = score(images())
    assert 0 < alone < 1
    assert answers(process, tmp_path) == pytest.approx([alone, alone])
