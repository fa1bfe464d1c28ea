"""What is found before the first job of a sweep starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig

from bnnbench.runs.preflight import preflight

Compose = Callable[..., DictConfig]


def test_a_disk_without_room_for_a_run_is_told(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints of a ResNet-18 with Adam's moments are 270 MB."""
    cfg = compose("backbone=resnet20", "trainer.max_epochs=0")
    for free, full in ((100e6, True), (1e9, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if full:
            with pytest.raises(OSError, match=r"100 MB left: set paths\.log_dir"):
                preflight([cfg])
        else:
            preflight([cfg])
