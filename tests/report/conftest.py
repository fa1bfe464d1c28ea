"""Hand-written manifests, results and published numbers: no training, no torch."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

_RESULT: dict[str, Any] = {
    "schema": 2,
    "name": "a_run",
    "fingerprint": "0" * 64,
    "config": {},
    "overrides": [],
    "command": "python src/train.py",
    "tags": [],
    "source_proofs": [],
    "versions": {},
    "world_size": 1,
    "classes": None,
    "headline": "test/acc",
    "choices": {
        "quantizer": "adabin",
        "loss": "task",
        "backbone": "resnet20",
        "dataset": "cifar10",
        "recipe": "unified",
    },
    "seed": 0,
    "source_hash": "aaa",
    "structure": {"shortcut": "conv", "nonlinearity": "maxout", "head_norm": True},
    "bits": {"w": 1, "a": 1},
    "bases": {"w": 1, "a": 1},
    "metrics": {
        "last": {"test/acc": 0.9, "test/loss": 0.3},
        "best": {"test/acc": 0.91, "epoch": 1},
    },
    "history": {
        "epoch": [0, 1],
        "train/loss": [1.0, 0.5],
        "train/acc": [0.6, 0.8],
        "test/loss": [0.9, 0.4],
        "test/acc": [0.7, 0.9],
        "lr": [0.1, 0.0],
    },
    "epochs": 2,
    "planned_epochs": 2,
    "ended": None,
    "data_stamp": f"sha256:{'a' * 64}",
    "train_images": 50000,
    "test_images": 10000,
    "operations": {"ops": 1.07e6, "params": 271262, "packed_bytes": 48950},
    "time": {"wall_s": 14.5, "train_s": 12.34, "images_per_s": 300.0, "peak_memory_mb": 512.0},
    "device": "cpu: a processor, 1 thread",
    "git": {"commit": "0123456789abcdef", "dirty": False},
}
_PUBLISHED: dict[str, Any] = {
    "title": "A table",
    "paper": "arXiv 0000.00000",
    "metric": {"name": "top1", "unit": "percent", "higher_is_better": True},
    "protocol": {"dataset": "cifar10", "backbones": ["resnet20"], "known": ["400 epochs"]},
    "sources": [{"id": "arXiv 0000.00000", "what": "the paper"}],
    "rows": [
        {
            "method": "adabin",
            "label": "AdaBin",
            "bits": {"w": 1, "a": 1},
            "backbone": "resnet20",
            "values": {"top1": 88.2},
            "source": "arXiv 0000.00000 Table 1",
            "source_kind": "own",
            "verified": True,
            "run": {"quantizer": "adabin", "backbone": "resnet20"},
        },
        {
            "method": "slb",
            "label": "SLB",
            "bits": {"w": 1, "a": 1},
            "backbone": "resnet20",
            "values": {"top1": 85.5},
            "source": None,
            "verified": False,
            "run": {"quantizer": "slb", "backbone": "resnet20"},
        },
    ],
}


@pytest.fixture
def make_result() -> Callable[..., dict[str, Any]]:
    """A result; keyword arguments replace top-level entries, `acc` sets the last accuracy."""

    def make(quantizer: str = "adabin", acc: float = 0.9, **entries: Any) -> dict[str, Any]:
        result = copy.deepcopy(_RESULT) | entries
        result["choices"] = result["choices"] | {"quantizer": quantizer}
        result["metrics"]["last"]["test/acc"] = acc
        return result

    return make


@pytest.fixture
def make_manifest() -> Callable[..., dict[str, Any]]:
    """A manifest from the overrides of its cells, e.g. "quantizer=adabin seed=1".

    Run and fingerprint of a cell are its overrides, so that results can be keyed by them. Its
    settings are the overrides, read as YAML, and what `settings` says of all cells.
    """

    def make(*cells: str, settings: dict[str, Any] | None = None, **entries: Any) -> dict[str, Any]:
        overrides = [dict(word.split("=") for word in cell.split()) for cell in cells]
        keys = dict.fromkeys(key for cell in overrides for key in cell)
        swept = [k for k in keys if k != "seed" and len({cell.get(k) for cell in overrides}) > 1]
        return {
            "schema": 2,
            "name": "a_sweep",
            "command": "python src/train.py -m",
            "table": None,
            "scale": None,
            "scale_notes": None,
            "swept": swept,
            "headline": "test/acc",
            "shared": dict(settings or {}),
            "cells": [
                {
                    "overrides": options,
                    "run": text,
                    "fingerprint": text,
                    "settings": resolved(options),
                }
                for text, options in zip(cells, overrides, strict=True)
            ],
        } | entries

    return make


def hexed(text: str) -> str:
    """A fingerprint for files, which have to hold one that looks like one."""
    return hashlib.sha256(text.encode()).hexdigest()


def resolved(overrides: dict[str, str]) -> dict[str, Any]:
    """Overrides as settings: a choice as the name of its group, values with their types."""
    return {
        key if "." in key or key == "seed" else f"{key}.name": _typed(value)
        for key, value in overrides.items()
    }


def _typed(value: str) -> Any:
    try:
        return float(value) if set(value) & set(".e") else yaml.safe_load(value)
    except ValueError:
        return yaml.safe_load(value)


@pytest.fixture
def make_written(make_manifest) -> Callable[..., dict[str, Any]]:
    """A manifest as by make_manifest whose cells have fingerprints of the form that files have."""

    def make(*cells: str, **entries: Any) -> dict[str, Any]:
        manifest = make_manifest(*cells, **entries)
        for cell in manifest["cells"]:
            cell["fingerprint"] = hexed(cell["fingerprint"])
        return manifest

    return make


@pytest.fixture(name="hexed")
def hexed_fixture() -> Callable[[str], str]:
    """The fingerprint that make_written gives a cell."""
    return hexed


@pytest.fixture
def published() -> dict[str, Any]:
    """Published numbers of adabin (verified) and slb (recalled) on CIFAR-10, ResNet-20."""
    return copy.deepcopy(_PUBLISHED)


@pytest.fixture
def write() -> Callable[[Path, dict[str, Any]], Path]:
    """Write JSON, making the folders."""

    def write_json(path: Path, content: dict[str, Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write_json


@pytest.fixture
def column() -> Callable[..., list[str]]:
    """The cells of a table's column, found by the start of its header."""

    def cells(table: Any, name: str) -> list[str]:
        index = next(i for i, text in enumerate(table.header) if text.startswith(name))
        return [row[index] for row in table.rows]

    return cells


@pytest.fixture
def make_speeds() -> Callable[..., dict[str, Any]]:
    """A bench file of ResNet-20: fp32, int8 and AdaBin; keyword arguments replace its entries."""

    def subject(method: str, **entries: Any) -> dict[str, Any]:
        return {
            "network": "resnet20",
            "method": method,
            "backbone": "resnet20",
            "image": [3, 32, 32],
            "quantizer": {"name": method, "t_max": 10.0},
            "structure": _RESULT["structure"],
            "bits": {"w": 1, "a": 1},
            "operations": _RESULT["operations"],
            "bytes": 61256,
            "work": "0123456789abcdef",
        } | entries

    def timing(method: str, way: str, ms: float, **ratios: float) -> dict[str, Any]:
        entry = {"network": "resnet20", "method": method, "way": way, "batch": 1, "threads": 1}
        entry |= {"rounds": 9, "ms": [ms - 0.1, ms, ms + 0.1], "best_float": "float, compiled"}
        keys = ("x_float", "x_int8", "x_simulation")
        known = {key: [value - 1, value, value + 1] for key, value in ratios.items()}
        return entry | dict.fromkeys(keys) | known

    def make(**entries: Any) -> dict[str, Any]:
        return {
            "schema": 1,
            "command": "bnnbench bench",
            "date": "2026-01-01T00:00:00+00:00",
            "machine": {
                "cpu": "A CPU",
                "flags": ["avx2"],
                "cores": 2,
                "kernel": "avx2",
                "load": 0.5,
            },
            "versions": {"torch": "2.12"},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "subjects": [
                subject("fp32", bits={"w": 32, "a": 32}, bytes=1085048, work=None),
                subject("adabin"),
            ],
            "timings": [
                timing("fp32", "float, eager", 3.0, x_float=2.0, x_int8=0.5),
                timing("fp32", "float, compiled", 1.5, x_float=1.0, x_int8=0.75),
                timing("fp32", "int8", 1.0, x_float=1.5, x_int8=1.0),
                timing("adabin", "packed", 0.5, x_float=3.0, x_int8=2.0, x_simulation=12.0),
                timing("adabin", "simulated", 6.0, x_float=0.25, x_int8=0.125, x_simulation=1.0),
            ],
            "left_out": [],
            "limits": {},
            "layers": [],
        } | entries

    return make
