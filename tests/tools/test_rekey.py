"""Results of version 1 keep their numbers, and stand under names that a run of today looks up."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprint, fingerprinted, run_name
from bnnbench.records.store import Cell, cell_state, read_result

TOOL = Path(__file__).resolve().parents[2] / "tools" / "rekey.py"
NEW = ("world_size", "callbacks", "teacher", "train", "ckpt_path", "compile", "channels_last")


@pytest.fixture(scope="module")
def rekey() -> Any:
    spec = importlib.util.spec_from_file_location("rekey", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rekey"] = module
    spec.loader.exec_module(module)
    return module


def old_result(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """What version 1 wrote of a run of ``cfg``."""
    config = {key: value for key, value in fingerprinted(cfg).items() if key not in NEW}
    config["trainer"].pop("accelerator")
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    groups = ("quantizer", "loss", "backbone", "dataset", "recipe")
    choices = {group: cfg[group].name for group in groups}
    if cfg.recipe.stages:  # of the last one
        choices["loss"] = cfg.recipe.stages[-1].set.loss
    return {
        "schema": 1,
        "name": f"digits_run_{digest[:8]}",
        "choices": choices,
        "overrides": overrides,
        "seed": cfg.seed,
        "fingerprint": digest,
        "source_hash": "a" * 64,
        "config": config,
        "structure": {},
        "bits": {"w": 1, "a": 1},
        "bases": {"w": 1, "a": 1},
        "metrics": {"last": {"test/acc": 0.75, "test/loss": 1.0}, "best": {}},
        "history": {"epoch": [0], "test/acc": [0.75]},
        "epochs": 1,
        "train_images": 1437,
        "test_images": 360,
        "statistics": {"layers": []},
        "time": {"wall_s": 1.0, "train_s": 1.0, "images_per_s": 1.0, "peak_memory_mb": 1.0},
        "precision": "32-true",
        "compiled": False,
        "versions": {},
        "device": "cpu",
        "git": {"commit": None, "dirty": None},
        "command": "python src/train.py",
        "tags": [],
        "operations": {},
    }


def write(folder: Path, result: dict[str, Any]) -> None:
    place = folder / "runs" / result["name"]
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    "overrides",
    [
        ["quantizer=xnor", "backbone=resnet20", "trainer.max_epochs=1"],
        ["quantizer=xnor", "backbone=resnet20", "compile=true"],
        ["quantizer=bonn", "loss=bonn", "backbone=wrn22", "seed=3"],
        ["quantizer=wage", "backbone=vgg7", "recipe=native"],  # its stage has another loss
    ],
)
def test_a_finished_run_is_found_again(
    rekey: Any, compose: Callable[..., DictConfig], tmp_path: Path, overrides: list[str]
) -> None:
    cfg = compose(*overrides)
    old = old_result(cfg, overrides)
    write(tmp_path, old)
    done = rekey.rekey_runs(tmp_path / "runs", None)
    cell = Cell({}, run_name(cfg), fingerprint(cfg))
    assert cell_state(tmp_path / "runs", cell) == "finished"
    assert done.names == {old["name"]: run_name(cfg)}
    new = read_result(tmp_path / "runs" / run_name(cfg)) or {}
    for kept in ("metrics", "history", "epochs", "train_images", "test_images", "time", "bits"):
        assert new[kept] == old[kept], kept
    assert (new["headline"], new["data_stamp"], new["source_proofs"]) == ("test/acc", None, [])
    assert rekey.rekey_runs(tmp_path / "runs", None).names == {}  # a second time changes nothing


def test_native_is_what_has_a_native_file(
    rekey: Any, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    names = {}
    for quantizer in ("tbn", "wage"):
        overrides = [f"quantizer={quantizer}", "backbone=vgg7", "recipe=native"]
        old = old_result(compose(*overrides), overrides)
        old["config"]["recipe"]["name"] = old["choices"]["recipe"] = "native"  # as it was then
        text = json.dumps(old["config"], sort_keys=True, separators=(",", ":"))
        old["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()
        write(tmp_path, old)
    for result in rekey.rekey_runs(tmp_path / "runs", None).results.values():
        names[result["choices"]["quantizer"]] = result["choices"]["recipe"]
        assert result["name"].split("_")[4] == result["choices"]["recipe"]
    assert names == {"tbn": "unified", "wage": "native"}


def test_a_sweep_knows_its_cells_again(
    rekey: Any, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    overrides = {"quantizer": "xnor", "backbone": "resnet20", "seed": "0"}
    cfg = compose(*(f"{key}={value}" for key, value in overrides.items()))
    old = old_result(cfg, ["quantizer=xnor", "backbone=resnet20"])
    write(tmp_path, old)
    cell = {"overrides": overrides, "run": old["name"], "fingerprint": old["fingerprint"]}
    never = {"overrides": overrides | {"quantizer": "irnet"}, "run": "x", "fingerprint": "0" * 64}
    sweep = {"schema": 1, "name": "s", "command": "python", "table": None, "scale": None}
    sweep |= {"scale_notes": None, "swept": ["quantizer"], "cells": [cell, never]}
    new = rekey.rekey_manifest(sweep, rekey.rekey_runs(tmp_path / "runs", None))
    assert new["cells"][0]["fingerprint"] == fingerprint(cfg)
    irnet = compose("quantizer=irnet", "backbone=resnet20")
    assert new["cells"][1]["run"] == run_name(irnet)
    assert new["cells"][1]["settings"]["quantizer.t_min"] == irnet.quantizer.t_min
    assert (new["headline"], new["shared"]["backbone.name"]) == ("test/acc", "resnet20")


def test_what_cannot_be_taken_is_named_and_left(
    rekey: Any, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """A result that is not its config's, a damaged one, and one whose name is taken."""
    foreign = old_result(compose("quantizer=xnor"), [])
    foreign["config"]["recipe"]["lr"] = 0.5
    write(tmp_path, foreign)
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "result.json").write_text("{")
    again = compose("quantizer=bnn", "backbone=resnet20")
    twice = old_result(again, ["quantizer=bnn", "backbone=resnet20"])
    write(tmp_path, twice)
    (tmp_path / "runs" / run_name(again)).mkdir()
    good = old_result(compose("quantizer=dorefa"), ["quantizer=dorefa"])
    write(tmp_path, good)
    done = rekey.rekey_runs(tmp_path / "runs", None)
    assert list(done.names) == [good["name"]]
    assert len(done.left) == 3
    for words in ("not that of the config", "damaged/result.json", "trained again"):
        assert any(words in line for line in done.left), words
    for kept in (foreign, twice):
        file = tmp_path / "runs" / kept["name"] / "result.json"
        assert json.loads(file.read_text()) == kept


def test_a_cell_s_key_that_was_added_is_composed(rekey: Any, compose: Any, tmp_path: Path) -> None:
    cell = {"overrides": {"quantizer": "xnor", "trainer.limit_train_batches": "3"}}
    cell |= {"run": "x", "fingerprint": "0" * 64}
    found = rekey._cell(cell, rekey.Rekeyed())
    assert found.settings["trainer.limit_train_batches"] == 3
