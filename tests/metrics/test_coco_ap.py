"""COCO's metric over processes with different numbers of images."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from bnnbench.metrics.coco_ap import COCOAveragePrecision


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


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        timeout=timedelta(minutes=1),
        rank=rank,
        world_size=2,
    )
    torch.save(score(images()[rank::2]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_three_and_two_images_answer_as_one(tmp_path: Path) -> None:
    files = [tmp_path / f"{rank}.pt" for rank in (0, 1)]
    try:
        start_processes(process, (tmp_path,), nprocs=2, start_method="fork")
    except ProcessExitedException as error:  # gloo's threads may abort a process that is leaving
        if error.signal_name != "SIGABRT" or not all(file.exists() for file in files):
            raise
    alone = score(images())
    assert 0 < alone < 1
    assert [torch.load(file) for file in files] == pytest.approx([alone, alone])
