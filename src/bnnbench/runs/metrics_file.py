"""``metrics.csv``: what a run logs, complete and without repetitions however often it was cut;
``summary.csv``: its end.

Lightning's CSVLogger deletes the file when a run goes on, and writes an epoch's row after the
checkpoint of that epoch, so that a cut between the two loses it.
"""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.utilities import rank_zero_only

from bnnbench.callbacks.history import learning_rate
from bnnbench.records.durable import not_written, write_whole
from bnnbench.runs.run_log import About, Outcome, RunLog, plain


class MetricsFile(RunLog):
    """Rows of metrics by ``epoch`` and ``step``, as CSVLogger writes them, in a run's own folder.

    ``step`` counts optimiser steps from 0: a checkpoint of n steps stands for all rows below n.
    ``summary.csv`` has one line under its header, of the whole run.
    """

    key = "csv"

    def __init__(self, folder: str | Path, about: About | None = None) -> None:
        super().__init__()
        self.about = about or About("")
        self.folder = Path(folder)
        self.file = self.folder / "metrics.csv"
        self._columns: list[str] | None = None  # of the file; None before it is begun
        self._latest: list[dict[str, str]] = []

    @property
    def name(self) -> str:
        """Nothing: it lies in no folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """As ``name``."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    def attempt(self, call: Callable[[], Any]) -> None:
        """What cannot be written is told, and ends the run: what a disk has no room for is more."""
        call()

    @rank_zero_only
    def begin(self, step: int = 0) -> None:
        """Keep, of a file that is there, the rows below ``step``: of what a checkpoint holds."""
        self._write([row for row in _whole_rows(self.file) if int(row["step"]) < step])

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Write them to ``hparams.yaml``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_hparams_to_yaml(self.folder / "hparams.yaml", params)

    def write_row(self, row: dict[str, Any], step: int) -> None:
        """Add a row, unless one of the latest holds all of it."""
        if self._columns is None:
            self.begin()
        row = {name: str(value) for name, value in row.items()} | {"step": str(step)}
        if any(row.items() <= other.items() for other in self._latest):
            return
        self._latest = [*self._latest[-1:], row]
        if row.keys() <= {*(self._columns or [])}:
            self._add(_text([row], self._columns or []))
        else:
            self._write([*_whole_rows(self.file), row])

    def write_outcome(self, outcome: Outcome) -> None:
        """Write the summary; histograms are in ``result.json``, pictures are files beside it."""
        row = {"run": self.about.name, "tags": " ".join(self.about.tags)}
        row |= {name: str(value) for name, value in outcome.summary.items()}
        text = _text([dict(zip(row, row, strict=True)), row], list(row))
        write_whole(self.folder / "summary.csv", text.encode())

    @rank_zero_only
    def sync(self) -> None:
        """Make the rows so far outlive a power failure."""
        self._add("")

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the file by these rows."""
        columns = self._columns = sorted({name for row in rows for name in row})
        header = dict(zip(columns, columns, strict=True))
        if rows:
            write_whole(self.file, _text([header, *rows], columns).encode())
        else:
            self.file.unlink(missing_ok=True)

    def _add(self, text: str) -> None:
        try:
            with self.file.open("ab") as file:
                file.write(text.encode())
                file.flush()
                if not text:
                    os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self.file, error) from error


class EpochRow(Checkpoint):  # Lightning calls checkpoints last, when an epoch's metrics are known
    """Logs an epoch's row before the epoch's checkpoint is written, ahead of Lightning.

    Loggers that keep no rows beyond a checkpoint get from it only what Lightning does not log, the
    learning rate. It must stand before the ``ModelCheckpoint`` whose file a run goes on from.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = {
            name: plain(value)
            for name, value in trainer.logged_metrics.items()
            if not name.startswith(("test/", "val/"))  # the evaluation has logged its own row
        }
        rate = {"lr": learning_rate(trainer), "epoch": trainer.current_epoch}
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.log_metrics(row | rate, step=trainer.global_step - 1)
                logger.sync()
            else:
                logger.log_metrics(rate, step=trainer.global_step - 1)


def _text(rows: list[dict[str, str]], columns: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue()


def _whole_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a file that were written to their end, without their empty cells."""
    if not file.exists():
        return []
    text = file.read_bytes().decode("utf-8", errors="replace")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows: list[dict[str, str]] = []
    for row in reader:
        if None not in row and None not in row.values() and str(row.get("step")).isdigit():
            rows.append({name: value for name, value in row.items() if value != ""})
    return rows
