"""metrics.csv after any number of cuts is what it is without one."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.callbacks.throughput import NAMES
from bnnbench.records import durable
from bnnbench.runs import run
from bnnbench.runs.metrics_file import MetricsFile

Compose = Callable[..., DictConfig]


class Cut(Exception):
    """Stands for a power failure."""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def untimed(folder: Path) -> list[dict[str, str]]:
    """The rows without what differs from run to run."""
    return [{name: v for name, v in row.items() if name not in NAMES} for row in rows(folder)]


def test_columns_that_come_later_are_added_to_all_rows(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": torch.tensor(1.5)}, step=2)
    logger.log_metrics({"epoch": 0, "test/acc": 0.5}, step=2)
    logger.log_metrics({"epoch": 1, "train/loss": 1.25}, step=5)
    assert rows(tmp_path) == [
        {"epoch": "0", "step": "2", "test/acc": "", "train/loss": "1.5"},
        {"epoch": "0", "step": "2", "test/acc": "0.5", "train/loss": ""},
        {"epoch": "1", "step": "5", "test/acc": "", "train/loss": "1.25"},
    ]


def test_a_row_that_lightning_logs_once_more_stands_once(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5, "lr": 0.1}, step=2)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step=2)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step=3)
    assert [row["step"] for row in rows(tmp_path)] == ["2", "3"]


@pytest.mark.parametrize("torn", ["", "1,8,0.", '1,"8', "1,8,0.5,0.5\n", "1,x,0.5\n", "\x00\xff\n"])
def test_what_is_beyond_the_checkpoint_or_torn_goes(tmp_path: Path, torn: str) -> None:
    whole = "epoch,step,train/loss\n0,2,1.5\n1,5,1.25\n"
    (tmp_path / "metrics.csv").write_text(whole + torn, encoding="latin-1")
    logger = MetricsFile(tmp_path)
    logger.begin(3)
    logger.log_metrics({"epoch": 1, "train/loss": 1.0}, step=5)
    expected = whole.replace("1.25", "1.0")
    assert (tmp_path / "metrics.csv").read_text() == expected


def test_a_start_from_the_beginning_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step\n0,0\n")
    MetricsFile(tmp_path).begin()
    assert not (tmp_path / "metrics.csv").exists()


def at_batch(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    def hook(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        original(self, trainer, module, *rest)
        if (trainer.current_epoch, rest[1]) == (epoch, batch):
            raise Cut

    original = QuantizerProgress.on_train_batch_start
    monkeypatch.setattr(QuantizerProgress, "on_train_batch_start", hook)


def before_the_checkpoint(monkeypatch: pytest.MonkeyPatch, epoch: int, _: int) -> None:
    def hook(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.current_epoch == epoch and self.filename == "last":
            raise Cut
        original(self, trainer, *rest)

    original = ModelCheckpoint.on_train_epoch_end
    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", hook)


def after_the_checkpoint(monkeypatch: pytest.MonkeyPatch, epoch: int, _: int) -> None:
    def hook(self: Any, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.current_epoch == epoch and self.filename == "last":
            raise Cut

    original = ModelCheckpoint.on_train_epoch_end
    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", hook)


def in_a_row(monkeypatch: pytest.MonkeyPatch, epoch: int, _: int) -> None:
    def half(self: MetricsFile, text: str) -> None:
        if text.startswith(f"{epoch},") and len(text) > 10:
            original(self, text[:10])
            raise Cut
        original(self, text)

    original = MetricsFile._add
    monkeypatch.setattr(MetricsFile, "_add", half)


CUTS = [
    (at_batch, 0, 1),
    (before_the_checkpoint, 0, 0),
    (after_the_checkpoint, 1, 0),
    (at_batch, 2, 2),
    (in_a_row, 2, 0),
    (after_the_checkpoint, 3, 0),
]


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["trainer.log_every_n_steps=1", "+trainer.check_val_every_n_epoch=2"],
        ["dataset.val_fraction=0.2", "loss=bonn", "trainer.log_every_n_steps=2"],
    ],
)
def test_six_cuts_leave_the_rows_of_an_uncut_run(
    compose: Compose, short: list[str], tmp_path: Path, extra: list[str]
) -> None:
    arguments = [*short, "logger=csv", "trainer.max_epochs=4", *extra]
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    run.execute(whole, Path(whole.paths.output_dir), quiet=True)
    cfg = compose(*arguments)
    folder = Path(cfg.paths.output_dir)
    for cut, epoch, batch in CUTS:
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, epoch, batch)
            with pytest.raises(Cut):
                run.execute(cfg, folder, quiet=True)
    run.execute(cfg, folder, quiet=True)
    expected = untimed(tmp_path / "whole")
    assert len(expected) > 5
    assert untimed(folder) == expected
    assert all(float(row["epoch_s"]) > 0 for row in rows(folder) if row["train/loss"])


def test_a_row_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"epoch": 0}, step=0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match=r"metrics\.csv cannot be written \(No space left"):
        logger.sync()
