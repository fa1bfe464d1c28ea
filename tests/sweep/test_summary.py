"""A sweep's table and figures are in the files of its loggers' summary run."""

from __future__ import annotations

import json
import string
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image

from bnnbench.report.markup import Table
from bnnbench.runs.wandb import link_of, remember_link
from bnnbench.sweep.summary import log_summary, shared_config, typed

from ..reading import read_tensorboard, wandb_runs


def test_summary_run_holds_the_table_and_the_figures(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = compose("logger=wandb")
    table = Table("title", ["quantizer", "accuracy %"], [["adabin", "97.50"], ["xnor", "-"]], [])
    folder = tmp_path / "logs" / "sweeps" / "my_sweep"
    folder.mkdir(parents=True)
    for number, name in enumerate(("curves", "kernels")):
        Image.new("P", (3 + number, 2)).save(folder / f"{name}.png")
    (folder / "kernels.svg").write_text("<svg/>")
    log_summary(cfg, "my_sweep", table)
    files = list((tmp_path / "logs").rglob("comparison*.table.json"))
    assert len(files) == 1
    written = json.loads(files[0].read_text())
    assert written["columns"] == ["quantizer", "accuracy %"]
    assert written["data"] == [["adabin", 97.5], ["xnor", None]]
    images = {file.name.split("_")[0]: file for file in folder.rglob("media/images/*.png")}
    assert sorted(images) == ["curves", "kernels"]
    assert Image.open(images["kernels"]).size == (4, 2)


def test_the_summary_is_one_run_with_numbers_and_addresses(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same id; runs have their address where it is known."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = compose("logger=[csv,wandb]", "tags=[mine]")
    folder = tmp_path / "logs" / "sweeps" / "my sweep"
    folder.mkdir(parents=True)
    (folder / "runs.csv").write_text("run,acc,compiled,commit\n1e5,0.5,true,12\nb,,false,\n")
    (tmp_path / "logs" / "runs" / "b").mkdir(parents=True)
    run = SimpleNamespace(offline=False, url="https://wandb.ai/me/bnnbench/runs/b")
    remember_link(tmp_path / "logs" / "runs" / "b", run)
    table = Table("title", ["quantizer", "OPs"], [["adabin", "4.9e4"]], [])
    log_summary(cfg, "my sweep", table)
    time.sleep(1.1)  # wandb names offline runs by the second
    log_summary(cfg, "my sweep", table)
    files = sorted(folder.rglob("runs_*.table.json"))
    assert len(files) == 2
    written = json.loads(files[0].read_text())
    assert written["columns"] == ["run", "acc", "compiled", "commit", "wandb"]
    assert written["data"] == [["1e5", 0.5, True, "12", None], ["b", None, False, None, run.url]]
    runs = wandb_runs(folder)
    (one,) = {each.run.run_id for each in runs}
    assert set(one) <= set(string.ascii_letters + string.digits + "_.-")
    assert {(r.run.job_type, r.run.run_group, *r.run.tags) for r in runs} == {
        ("summary", "my sweep", "mine")
    }
    assert [each.exit_code for each in runs] == [0, 0]
    assert "quantizer" in runs[0].config


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-2"], {"a": [1, -2]}),
        (["97.50 ± 0.21", "90.00*", "-"], {"a": [97.5, 90.0, None], "a ±": [0.21, None, None]}),
        (["4.902e4", ""], {"a": [49020.0, None]}),
        (["1 of 2", "2"], {"a": ["1 of 2", "2"]}),
        (["true", "false", ""], {"a": [True, False, None]}),
        (["yes", "no"], {"a": ["yes", "no"]}),
        (["1/1", "-"], {"a": ["1/1", None]}),
        (["-", ""], {"a": [None, None]}),
    ],
)
def test_numbers_are_numbers(texts: list[str], values: dict[str, Any]) -> None:
    assert typed({"a§": texts}) == values


def test_an_address_is_one(tmp_path: Path) -> None:
    """Offline runs have none; a file that somebody has written names no other place."""
    remember_link(tmp_path, SimpleNamespace(offline=True, url=None))
    assert link_of(tmp_path) is None
    for text in ("", "[]", '{"wandb": 3}', '{"wandb": "javascript:alert(1)"}', "\x00"):
        (tmp_path / "links.json").write_text(text)
        assert link_of(tmp_path) is None


@pytest.mark.parametrize("key", ["tensorboard", "mlflow"])
def test_other_loggers_have_the_table_and_the_figures(
    compose: Callable[..., DictConfig], tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(key, reason=f"bnnbench[{key}] is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cfg = compose(f"logger={key}")
    folder = tmp_path / "logs" / "sweeps" / "my_sweep"
    folder.mkdir(parents=True)
    Image.new("P", (3, 2)).save(folder / "curves.png")
    (folder / "table.md").write_text("a table")
    log_summary(cfg, "my_sweep", Table("title", ["quantizer"], [["adabin"]], []))
    if key == "tensorboard":
        read = read_tensorboard(folder)
        assert read.Tags()["images"] == ["curves"]
        assert b"adabin" in read.Tensors("comparison/text_summary")[0].tensor_proto.string_val[0]
    else:
        names = {file.name for file in (tmp_path / "logs" / "mlflow").glob("*/artifacts/*")}
        assert names == {"curves.png", "table.md"}


def test_the_config_of_a_sweep_claims_no_one_value_of_what_is_swept(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    swept = ["quantizer", "recipe.lr", "quantizer.gradient"]
    words = [("xnor", "0.1"), ("xnor", "0.2"), ("bnn", "0.1"), ("bnn", "0.2")]
    cells = [
        {"overrides": {"quantizer": q, "+quantizer.gradient": "lua", "recipe.lr": lr}}
        for q, lr in words
    ]
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"swept": swept, "cells": cells}))
    config = shared_config(compose("quantizer=adabin", "seed=3"), file)
    assert config["quantizer"] == ["xnor", "bnn"]
    assert config["quantizer.gradient"] == ["lua"]
    assert config["recipe"]["lr"] == ["0.1", "0.2"]
    assert config["recipe"]["optimizer"] == "adam"
    assert (config["seed"], config["backbone"]["name"]) == (3, "resnet18")
