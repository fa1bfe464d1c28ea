"""Loggers of a run, and how a finished run reaches one that was switched on later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from bnnbench.checks.packages import check_packages
from bnnbench.config import target, to_dict
from bnnbench.records.store import logged_by, mark_logged
from bnnbench.runs.metrics_file import MetricsFile
from bnnbench.runs.mlflow import MlflowLog
from bnnbench.runs.run_log import About, Outcome, RunLog, Status, outcome_of, rows_of
from bnnbench.runs.signals import is_ending
from bnnbench.runs.tensorboard import TensorBoardLog
from bnnbench.runs.wandb import WandbLog, choose_mode

OURS = "bnnbench."  # loggers of this package are told which run they are of


def csv_logger(about: About, folder: str) -> MetricsFile:
    """``metrics.csv`` and ``summary.csv`` in the run's own folder, wherever that is."""
    return MetricsFile(folder, about)


def tensorboard_logger(about: About, folder: str) -> TensorBoardLog:
    """Event files in the run's own folder."""
    return TensorBoardLog(about, folder)


def mlflow_logger(
    about: About, experiment: str, tracking_uri: str, artifacts: str | None
) -> MlflowLog:
    """A run of an experiment in a store, by default a file of SQLite's that needs no server."""
    return MlflowLog(about, experiment, tracking_uri, artifacts)


def wandb_logger(about: About, project: str, folder: str, group: str | None) -> WandbLog:
    """The logger of one run; online with a key and a server, unless WANDB_MODE says otherwise."""
    choose_mode(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return WandbLog(about, project, folder, group)


def as_tags(tags: Iterable[Any] | None) -> tuple[str, ...]:
    """What a user marked a run with, as texts, each once."""
    return tuple(dict.fromkeys(str(tag) for tag in tags or ()))


def build_loggers(cfg: DictConfig, about: About) -> dict[str, Logger]:
    """The loggers that ``cfg.logger`` names, by their keys.

    Raises:
        ValueError: one cannot be built, or its package is missing; the message names the key.
    """
    check_packages(cfg.logger)
    built: dict[str, Logger] = {}
    for key, node in to_dict(cfg.logger).items():
        if not node:
            continue
        build = target(node)
        ours = str(node["_target_"]).startswith(OURS)
        try:
            logger = build(about) if ours else build()
        except TypeError as error:
            raise ValueError(f"logger.{key}: {error}") from error
        if not isinstance(logger, Logger):
            raise ValueError(
                f"logger.{key}._target_={node['_target_']}: what it makes is no logger; give a "
                "class that inherits from lightning.pytorch.loggers.Logger"
            )
        built[key] = logger
    return built


@contextmanager
def opened(cfg: DictConfig, about: About) -> Iterator[dict[str, Logger]]:
    """The loggers of a run, closed when it ends, and told how it ended."""
    loggers = build_loggers(cfg, about)
    status: Status = "failed"
    try:
        yield loggers
        status = "success"
    except BaseException as error:
        if not isinstance(error, Exception) or is_ending():
            status = "cut"
        raise
    finally:
        for logger in loggers.values():
            if isinstance(logger, RunLog):
                logger.close(status)
            else:
                logger.finalize("success" if status == "success" else "failed")


def begin(loggers: dict[str, Logger], epoch: int, step: int, start: int) -> None:
    """A stage begins at ``epoch`` and ``step`` of its run, ``start`` steps of it done before."""
    for logger in loggers.values():
        if isinstance(logger, RunLog):
            logger.first_epoch, logger.first_step = epoch, step
            rank_zero_only(logger.begin)(step + start)


def tell(loggers: dict[str, Logger], outcome: Outcome) -> None:
    """Give each logger the end of a run; one of others has what all have."""
    numbers = {
        name: value for name, value in outcome.summary.items() if type(value) in (int, float)
    }
    for logger in loggers.values():
        if isinstance(logger, RunLog):
            logger.log_outcome(outcome)
        elif outcome.summary:
            logger.log_metrics(numbers, step=outcome.step + 1)  # pyright: ignore[reportArgumentType]


def reached(loggers: dict[str, Logger], folder: Path) -> None:
    """Remember the loggers that have all of a finished run: none that broke on the way."""
    for key, logger in loggers.items():
        if not getattr(logger, "broken", False):
            rank_zero_only(mark_logged)(folder, key)


def replay(cfg: DictConfig, folder: Path, result: dict[str, Any]) -> None:
    """Give a finished run to the loggers that it has not reached, as it would have been live."""
    missing = cfg.copy()
    with open_dict(missing):
        for key in set(cfg.logger) & set(logged_by(folder)):
            missing.logger.pop(key)
    about = About(result["name"], "train", as_tags(result.get("tags")))
    with opened(missing, about) as loggers:
        begin(loggers, 0, 0, 0)
        for logger in loggers.values():
            logger.log_hyperparams(result["config"])
            for row, step in rows_of(result):
                logger.log_metrics(row, step=step)
        tell(loggers, outcome_of(result, folder))
    reached(loggers, folder)
