"""TensorBoard: a run's event files, in its own folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from bnnbench.runs.run_log import About, Histogram, Outcome, RunLog, Status

_BEFORE_RESULT = ("last/", "best/")  # what the page of hyperparameters compares runs by


class TensorBoardLog(RunLog):
    """Scalars by optimiser step, with ``epoch`` among them; the config as text.

    At the end ``summary/*`` as scalars and texts, histograms, pictures, and the run's line on the
    page of hyperparameters. ``tensorboard --logdir logs/runs`` shows all runs by their names.
    """

    key = "tensorboard"

    def __init__(self, about: About, folder: str | Path) -> None:
        super().__init__()
        self.about, self.folder = about, Path(folder)
        self._writer: Any = None
        self._purge: int | None = None
        self._params: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The run's."""
        return self.about.name

    @property
    def version(self) -> str:
        """Nothing: the name says all."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``SummaryWriter``, made when it is asked for first."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        return self._writer

    def begin(self, step: int) -> None:
        """What an earlier file has from ``step`` on is left out when it is shown."""
        self._purge = step or None

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log the config as text, and keep it for the end."""
        self._params = params if isinstance(params, dict) else vars(params)
        text = OmegaConf.to_yaml(OmegaConf.create(self._params))
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        self.attempt(lambda: self._texts({"config": indented, "tags": ", ".join(self.about.tags)}))

    def _texts(self, texts: dict[str, str]) -> None:
        for name, text in texts.items():
            if text:
                self.experiment.add_text(name, text, self._purge or 0)

    def write_row(self, row: dict[str, Any], step: int) -> None:
        for name, value in row.items():
            self.experiment.add_scalar(name, value, step)

    def write_outcome(self, outcome: Outcome) -> None:
        numbers = {f"summary/{n}": v for n, v in outcome.summary.items() if not isinstance(v, str)}
        for name, value in numbers.items():
            self.experiment.add_scalar(name, value, outcome.step)
        texts = {f"summary/{n}": v for n, v in outcome.summary.items() if isinstance(v, str)}
        for name, text in texts.items():
            self.experiment.add_text(name, text, outcome.step)
        for taken in outcome.histograms:
            self._histogram(taken)
        self.log_pictures({f"pictures/{n}": f for n, f in outcome.pictures.items()}, outcome.step)
        self._compare({n: v for n, v in numbers.items() if n[8:].startswith(_BEFORE_RESULT)})

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Log PNG files by name."""
        from PIL import Image

        for name, file in pictures.items():
            pixels = np.asarray(Image.open(file).convert("RGB"))
            self.experiment.add_image(name, pixels, step, dataformats="HWC")

    def _histogram(self, taken: Histogram) -> None:
        edges, counts = np.array(taken.edges), np.array(taken.counts)
        middles = (edges[1:] + edges[:-1]) / 2  # the weights themselves are not known
        self.experiment.add_histogram_raw(
            taken.name,
            min=edges[0],
            max=edges[-1],
            num=int(counts.sum()),
            sum=float(counts @ middles),
            sum_squares=float(counts @ middles**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=taken.step,
        )

    def _compare(self, metrics: dict[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        flat = {name: _simple(value) for name, value in _flatten_dict(self._params).items()}
        if flat and metrics:
            for summary in hparams(flat, metrics):
                self.experiment.file_writer.add_summary(summary)

    def end(self, status: Status) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _simple(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
