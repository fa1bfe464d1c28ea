"""Folders, room and devices that a run needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig

from bnnbench.checks import places

Compose = Callable[..., DictConfig]


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    places.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_below_a_file_says_what_to_set(tmp_path: Path) -> None:
    """As root everything is writable: a file in the way is refused to everybody."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/runs cannot be written.*: set paths\.log_dir="):
        places.check_writable(tmp_path / "file" / "runs")


@pytest.mark.parametrize(("free", "full"), [(199e6, True), (201e6, False)])
def test_room_for_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, full: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if full:
        with pytest.raises(OSError, match=r"has 199 MB left: set paths\.log_dir="):
            places.check_room(tmp_path)
    else:
        places.check_room(tmp_path)


def test_the_temporary_folder_is_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself passes over one that is not there, libraries do not."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    places.check_temporary()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(OSError, match=r"^TMPDIR=.*gone cannot be written.*: set TMPDIR=<folder>"):
        places.check_temporary()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e6))
    with pytest.raises(OSError, match=r"^TMPDIR=.* has 5 MB left: set TMPDIR=<folder>"):
        places.check_temporary()
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="the folder for temporary files, has 5 MB left"):
        places.check_temporary()


@pytest.mark.parametrize("devices", ["99", "[0,1,2]", "'0,1,2'"])
def test_more_devices_than_there_are(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, devices: str
) -> None:
    monkeypatch.setattr(places, "cores", lambda: 2)
    cpu = ["trainer.accelerator=cpu", "backbone=resnet20"]
    with pytest.raises(ValueError, match=r"^trainer\.devices=.*: there are 2 CPU cores here"):
        places.check_devices(compose(*cpu, f"trainer.devices={devices}"))
    places.check_devices(compose(*cpu, "trainer.devices=2"))
    places.check_devices(compose(*cpu, "trainer.devices=auto"))


def test_gpus_are_counted_where_there_are_any(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "visible_gpus", lambda: ["0", "1"])
    places.check_devices(compose("backbone=resnet20", "trainer.devices=2"))
    with pytest.raises(ValueError, match="there are 2 GPUs here"):
        places.check_devices(compose("backbone=resnet20", "trainer.devices=3"))


@pytest.mark.parametrize("kind", ["gpu", "cuda", "mps"])
@pytest.mark.parametrize("there", [True, False])
def test_a_kind_of_device_that_is_not_there(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, kind: str, there: bool
) -> None:
    monkeypatch.setattr(places, "visible_gpus", list)
    monkeypatch.setattr("torch.cuda.is_available", lambda: there and kind != "mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: there and kind == "mps")
    cfg = compose("backbone=resnet20", f"trainer.accelerator={kind}")
    if there:
        places.check_devices(cfg)
    else:
        with pytest.raises(ValueError, match=f"^trainer.accelerator={kind}: .* give cpu or auto"):
            places.check_devices(cfg)
