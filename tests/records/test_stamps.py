"""The stamp told from a config: as a run gives it, quickly, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from bnnbench.config import to_dict
from bnnbench.records.stamps import remember, stamp_of
from bnnbench.runs.build import build_datamodule

SRC = Path(__file__).resolve().parents[2] / "src"
Compose = Callable[..., DictConfig]
SHAPES = ["backbone=ssd300_resnet18", "dataset=shapes", "dataset.generate.trainval=4"]
SHAPES += ["dataset.generate.test=2"]


def write_cifar10(root: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    content = {}
    for part in ("train", "test"):
        content[f"{part}_images"] = draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        content[f"{part}_labels"] = np.arange(20) % 10
    root.mkdir(exist_ok=True)
    np.savez(root / "cifar10.npz", **content)


FOLDERS = ["dataset=imagenet", "dataset.num_classes=2"]
SETS = [["dataset=digits"], ["dataset=cifar10"], SHAPES, FOLDERS]


@pytest.mark.parametrize("overrides", SETS)
def test_is_the_stamp_of_the_data_module(overrides, compose: Compose, tmp_path: Path) -> None:
    write_cifar10(tmp_path / "data", 0)
    for file in ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/2.png"):
        (tmp_path / "data" / "imagenet" / file).parent.mkdir(parents=True)
        Image.new("RGB", (9, 8)).save(tmp_path / "data" / "imagenet" / file)
    cfg = compose(*overrides, "dataset.batch_size=2")
    data = build_datamodule(cfg)
    data.prepare_data()
    data.setup()
    dataset, cache = to_dict(cfg.dataset), tmp_path / "stamps.json"
    assert stamp_of(dataset, cache) == data.stamp  # decoded or listed
    assert stamp_of(dataset, cache) == data.stamp  # looked up or listed again


def test_a_warm_look_up_costs_nothing(compose: Compose, tmp_path: Path) -> None:
    """In a process of its own: neither torch nor lightning, within 20 ms for each set."""
    write_cifar10(tmp_path / "data", 0)
    cache = tmp_path / "stamps.json"
    datasets = [to_dict(compose(f"dataset={name}").dataset) for name in ("digits", "cifar10")]
    expected = [stamp_of(dataset, cache) for dataset in datasets]
    code = f"""
import json, sys, time
from pathlib import Path
from bnnbench.records.stamps import stamp_of
found = []
for dataset in {datasets!r}:
    start = time.process_time()
    found.append((stamp_of(dataset, Path({str(cache)!r})), time.process_time() - start))
loaded = [name for name in ("torch", "lightning", "sklearn") if name in sys.modules]
print(json.dumps([found, loaded]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True
    )
    found, loaded = json.loads(run.stdout)
    assert [name for name, _ in found] == expected
    assert all(seconds < 0.02 for _, seconds in found)
    assert loaded == []


def test_another_file_of_the_same_size_is_read_again(compose: Compose, tmp_path: Path) -> None:
    dataset, cache = to_dict(compose("dataset=cifar10").dataset), tmp_path / "stamps.json"
    write_cifar10(tmp_path / "data", 0)
    first = stamp_of(dataset, cache)
    time.sleep(0.02)
    write_cifar10(tmp_path / "data", 1)
    second = stamp_of(dataset, cache)
    assert second != first
    write_cifar10(tmp_path / "data", 0)
    assert stamp_of(dataset, cache) == first


def test_another_folder_is_another_entry(compose: Compose, tmp_path: Path) -> None:
    cache, found = tmp_path / "stamps.json", []
    for seed in (0, 1):
        write_cifar10(tmp_path / f"data{seed}", seed)
        folder = f"paths.data_dir={tmp_path}/data{seed}"
        found.append(stamp_of(to_dict(compose("dataset=cifar10", folder).dataset), cache))
    assert found[0] != found[1]
    assert [entry["stamp"] for entry in json.loads(cache.read_text()).values()] == found


def test_what_a_run_remembers_is_believed(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnnbench.data import sources

    write_cifar10(tmp_path / "data", 0)
    dataset, cache = to_dict(compose("dataset=cifar10").dataset), tmp_path / "stamps.json"
    monkeypatch.setattr(sources, "read", lambda *_: pytest.fail("read again"))
    remember(dataset, "sha256:" + "0" * 64, cache)
    assert stamp_of(dataset, cache) == "sha256:" + "0" * 64


def test_a_damaged_cache_is_written_anew(compose: Compose, tmp_path: Path) -> None:
    dataset, cache = to_dict(compose("dataset=digits").dataset), tmp_path / "stamps.json"
    stamp = stamp_of(dataset, cache)
    for text in ('{"digits": {', "[]"):
        cache.write_text(text)
        assert stamp_of(dataset, cache) == stamp
        assert json.loads(cache.read_text())["digits"]["stamp"] == stamp


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "voc0712", "shapes"])
def test_data_that_is_not_there_has_none(name: str, compose: Compose, tmp_path: Path) -> None:
    network = ["backbone=ssd300_resnet18"] if name in ("voc0712", "shapes") else []
    dataset: dict[str, Any] = to_dict(compose(f"dataset={name}", *network).dataset)
    assert stamp_of(dataset, tmp_path / "stamps.json") is None
    assert list(tmp_path.glob("stamps.json")) == []


def test_a_damaged_set_has_none(compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10.npz").write_text("not found")
    dataset = to_dict(compose("dataset=cifar10").dataset)
    assert stamp_of(dataset, tmp_path / "stamps.json") is None
