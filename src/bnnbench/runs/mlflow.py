"""MLflow: a run of an experiment, in a store that needs no server."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch.utilities import rank_zero_only

from bnnbench.runs.run_log import About, Outcome, RunLog, Status

SQLITE = "sqlite:///"
STORES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
NAME = "bnnbench.run"  # the tag by which a run is found again
STATES: dict[Status, str] = {"success": "FINISHED", "failed": "FAILED", "cut": "KILLED"}
_TOGETHER, _LENGTH = 100, 6000  # parameters that MLflow takes at once, characters of a value


class MlflowLog(RunLog):
    """Metrics by optimiser step, with ``epoch`` among them, and the config as parameters.

    At the end ``summary/*`` as metrics and tags, and as artifacts pictures and the histograms in
    ``histograms.json``. A run that is resumed goes on in its MLflow run, one that starts from the
    beginning has a new one. Nothing is sent to anybody: telemetry is off.

    Args:
        about: the run.
        experiment: the experiment's name; it is made if it is not there.
        tracking_uri: a database, ``sqlite:////path/mlflow.db``, or a server; MLflow keeps no files
            of its own any more.
        artifacts: folder of the experiment's artifacts; None: where the server says.
    """

    key = "mlflow"

    def __init__(
        self, about: About, experiment: str, tracking_uri: str, artifacts: str | None
    ) -> None:
        super().__init__()
        if re.split(r"[:+]", tracking_uri)[0] not in STORES:
            raise ValueError(
                f"logger.mlflow.tracking_uri={tracking_uri}: give a database, such as "
                "sqlite:///logs/mlflow.db, or a server, such as http://localhost:5000"
            )
        self.about, self._experiment, self.tracking_uri = about, experiment, tracking_uri
        self._artifacts = artifacts
        self._resumes = False
        self._client: Any = None
        self.run_id = ""

    @property
    def name(self) -> str:
        """The experiment's."""
        return self._experiment

    @property
    def version(self) -> str:
        """The run's id; empty before it has begun."""
        return self.run_id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``MlflowClient``; the run is begun when it is asked for first."""
        if self._client is None:
            client = client_of(self.tracking_uri)
            self.run_id = self._begun(client)
            self._client = client
        return self._client

    def _begun(self, client: Any) -> str:
        """Id of the MLflow run that is gone on with, or of a new one."""
        number = _experiment_id(client, self._experiment, self.tracking_uri, self._artifacts)
        if self._resumes:
            where = f"tags.`{NAME}` = '{self.about.name}'"
            found = client.search_runs([number], where, order_by=["attributes.start_time DESC"])
            for run in found[:1]:
                client.update_run(run.info.run_id, status="RUNNING")
                return run.info.run_id
        tags = {NAME: self.about.name, "job": self.about.job, "tags": ", ".join(self.about.tags)}
        tags |= {f"tag.{_allowed(tag)}": "true" for tag in self.about.tags}
        return client.create_run(number, tags=tags, run_name=self.about.name).info.run_id

    def begin(self, step: int) -> None:
        """A run that goes on from a step above 0 is looked for by its name."""
        self._resumes = step > 0

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """The first that a run asks of MLflow. ValueError where it cannot begin."""
        from mlflow.entities import Param

        given = params if isinstance(params, dict) else vars(params)
        flat = [Param(_allowed(k), str(v)[:_LENGTH]) for k, v in _flatten_dict(given).items()]
        try:
            for first in range(0, len(flat), _TOGETHER):
                part = flat[first : first + _TOGETHER]
                self.experiment.log_batch(self.run_id, params=part)
        except Exception as error:  # of databases and servers: MLflow does not wrap them all
            text = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"logger=mlflow: {self.tracking_uri}: {text}; choose another store with "
                "logger.mlflow.tracking_uri=<uri>"
            ) from error

    def write_row(self, row: dict[str, Any], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), float(v), now, step) for name, v in row.items()]
        self.experiment.log_batch(self.run_id, metrics=metrics)

    def write_outcome(self, outcome: Outcome) -> None:
        numbers = {f"summary/{n}": v for n, v in outcome.summary.items() if not isinstance(v, str)}
        if numbers:
            self.write_row(numbers, outcome.step)
        for name, text in outcome.summary.items():
            if isinstance(text, str):
                self.experiment.set_tag(self.run_id, f"summary.{_allowed(name)}", text)
        if outcome.histograms:
            taken = [each._asdict() for each in outcome.histograms]
            self.experiment.log_dict(self.run_id, {"histograms": taken}, "histograms.json")
        for file in outcome.pictures.values():
            self.experiment.log_artifact(self.run_id, str(file), "pictures")

    def end(self, status: Status) -> None:
        """Say how it ended."""
        if self._client is not None:
            self._client.set_terminated(self.run_id, STATES[status])


def client_of(tracking_uri: str) -> Any:
    """A client of a store, which is made if it is a database that is not there."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # no line a table that it makes
    from mlflow import MlflowClient

    if tracking_uri.startswith(SQLITE):
        _make(Path(tracking_uri.removeprefix(SQLITE)), MlflowClient)
    return MlflowClient(tracking_uri)


def _make(database: Path, client: Callable[[str], Any]) -> None:
    """Make a database unless it is there, whole or not at all, by one process of several."""
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists():
        return
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(lock, fcntl.LOCK_EX)
        if not database.exists():
            unfinished = database.with_name(f".{database.name}.new")
            unfinished.unlink(missing_ok=True)
            client(f"{SQLITE}{unfinished}")
            unfinished.replace(database)


def _experiment_id(client: Any, name: str, tracking_uri: str, artifacts: str | None) -> str:
    """Of the experiment of a name, which is made unless it is there, perhaps by another run."""
    from mlflow.exceptions import MlflowException

    place = None
    if artifacts is not None and tracking_uri.startswith("sqlite:"):
        place = Path(artifacts).absolute().as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise MlflowException(f"the experiment {name} was deleted: restore it, or choose another")
    return found.experiment_id


def _allowed(name: str) -> str:
    """A name with what MLflow takes in one; anything else is an underscore."""
    return re.sub(r"[^\w/. :-]", "_", str(name), flags=re.ASCII)
