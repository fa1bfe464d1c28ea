"""Checkpoints of real runs: written whole or not at all, of finite numbers, and told of if not."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.records import durable
from bnnbench.records.store import read_result
from bnnbench.runs import build, run, training
from bnnbench.runs.checkpoint_io import WholeCheckpoints

Compose = Callable[..., DictConfig]
CONTENT: dict[str, Any] = {"state_dict": {"net.fc.weight": torch.ones(3)}, "epoch": 0}


def test_last_leaves_the_one_before_it_and_others_do_not(tmp_path: Path) -> None:
    for epoch in range(3):
        for name in ("last", "best"):
            WholeCheckpoints().save_checkpoint(
                CONTENT | {"epoch": epoch}, tmp_path / f"{name}.ckpt"
            )
    found = {file.name: torch.load(file, weights_only=True)["epoch"] for file in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2, "best.ckpt": 2, "previous.ckpt": 1}


@pytest.mark.parametrize("bytes_", [1024, 100_000, 999_000])
def test_a_full_disk_is_told_by_its_name(tmp_path: Path, bytes_: int) -> None:
    last, content = tmp_path / "last.ckpt", CONTENT | {"state_dict": {"w": torch.ones(250_000)}}
    WholeCheckpoints().save_checkpoint(content, last)
    before, limits = last.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt cannot be written \(File too large\)"):
            WholeCheckpoints().save_checkpoint(content, last)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_the_best_epoch_is_kept_without_the_optimisers_state(
    compose: Compose, short: list[str]
) -> None:
    cfg = compose(*short)
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    folder = Path(cfg.paths.output_dir) / "checkpoints"
    best, last = (torch.load(folder / f"{name}.ckpt") for name in ("best", "last"))
    assert "optimizer_states" in last
    assert "optimizer_states" not in best
    assert best["state_dict"].keys() == last["state_dict"].keys()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["state_dict/net.fc.weight", "optimizer_states/0/state/1/avg"])
def test_what_is_no_finite_number_is_not_written(tmp_path: Path, value: float, place: str) -> None:
    bad = torch.tensor([1.0, value])
    content = {"state_dict": {"net.fc.weight": bad}}
    if place.startswith("optimizer"):
        content = CONTENT | {"optimizer_states": [{"state": {1: {"avg": bad}}}]}
    with pytest.raises(FloatingPointError, match=f"last.ckpt is not written, {place} holds"):
        WholeCheckpoints().save_checkpoint(content, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_best_score_of_minus_infinity_is_no_weight(tmp_path: Path) -> None:
    content = CONTENT | {"callbacks": {"best": {"best_model_score": torch.tensor(-torch.inf)}}}
    WholeCheckpoints().save_checkpoint(content, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_ends_the_run_and_the_same_command_goes_on(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cfg = compose(*short)
    folder, last = Path(cfg.paths.output_dir), Path(cfg.paths.output_dir) / "checkpoints/last.ckpt"
    original = durable._temporary

    def temporary(path: Path) -> Path:
        if path == last and last.exists():
            raise OSError(code, os.strerror(code))
        return original(path)

    def replaced(path: Path, *rest: Any) -> None:
        with monkeypatch.context() as patch:
            if path == last and last.exists():
                patch.setattr(durable.os, "fsync", lambda _: temporary(path))
            write(path, *rest)

    write = durable.write_whole
    with monkeypatch.context() as patch:
        patch.setattr("bnnbench.runs.checkpoint_io.write_whole", replaced)
        with pytest.raises(OSError, match=rf"last\.ckpt cannot be written \({os.strerror(code)}\)"):
            run.execute(cfg, folder, quiet=True)
    assert read_result(folder) is None
    assert torch.load(last, weights_only=True)["epoch"] == 0
    run.execute(cfg, folder, quiet=True)
    assert (read_result(folder) or {})["epochs"] == 3
    assert sorted(os.listdir(last.parent)) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("names", [("last",), ("last", "previous")])
def test_a_run_whose_checkpoints_are_damaged_trains_what_is_missing(
    compose: Compose,
    short: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    names: tuple[str, ...],
) -> None:
    cfg = compose(*short)
    folder = Path(cfg.paths.output_dir)
    with monkeypatch.context() as patch:  # all but the result
        patch.setattr(run, "tidy", lambda _: None)
        run.execute(cfg, folder, quiet=True)
    first = read_result(folder) or {}
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    (folder / "result.json").unlink()
    for name in names:
        file = folder / "checkpoints" / f"{name}.ckpt"
        file.write_bytes(file.read_bytes()[:1000])
    run.execute(cfg, folder, quiet=True)
    again = read_result(folder) or {}
    warnings = [
        r.getMessage() for r in caplog.records if r.name == training.__name__ and r.levelno > 20
    ]
    assert [f"{name}.ckpt" in line for name, line in zip(names, warnings, strict=True)] == [
        True for _ in names
    ]
    assert again["history"]["train/loss"] == first["history"]["train/loss"]
    assert again["metrics"] == first["metrics"]
    found = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, found[key]) for key, value in weights.items())


@pytest.mark.parametrize("how", ["train=false ckpt_path=", "init_from="])
@pytest.mark.parametrize("damage", ["cut", "nan"])
def test_files_that_a_user_names_are_refused(
    compose: Compose, short: list[str], tmp_path: Path, how: str, damage: str
) -> None:
    file, folder = tmp_path / "weights.ckpt", tmp_path / "other"
    folder.mkdir()
    task = build.build_task(compose(*short))
    state = task.net.state_dict()
    if damage == "nan":
        state["stages.0.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-900])
    reason = {"cut": "cannot be read as", "nan": r"stages\.0\.0\.conv1\.weight holds"}[damage]
    with pytest.raises(ValueError, match=rf"weights\.ckpt.*{reason}"):
        run.execute(compose(*short, *f"{how}{file}".split()), folder, quiet=True)
