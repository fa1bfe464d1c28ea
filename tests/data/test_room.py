"""A GPU without room is told before anything is moved there."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.data.room import check_fits
from bnnbench.runs.build import build_datamodule

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Say how many bytes a GPU has left."""

    def say(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (count, 2 * count))

    return say


def test_a_fifth_is_left_to_the_network(free) -> None:
    images = torch.zeros(8, 100, dtype=torch.uint8), torch.zeros(25, dtype=torch.int64)  # 1000
    free(1250)
    check_fits("mine", images, GPU)
    free(1249)
    with pytest.raises(ValueError, match=r"dataset=mine takes 0.00 GB of the GPU, of which 0.00"):
        check_fits("mine", images, GPU)


def test_what_is_there_already_takes_nothing(free) -> None:
    free(0)
    check_fits("mine", [torch.zeros(9)], CPU)
    check_fits("mine", [], GPU)


def test_a_run_is_told_before_its_images_are_moved(
    free, compose: Callable[..., DictConfig]
) -> None:
    data = build_datamodule(compose("dataset=digits"))
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=GPU))  # pyright: ignore
    free(1000)
    with pytest.raises(ValueError, match=r"dataset=digits takes 0.00 GB .*BNNBENCH_WORKERS"):
        data.setup("fit")
