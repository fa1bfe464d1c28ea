"""What each logger has written of a run, read back with its own package's reader."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from bnnbench.records.store import logged_by, read_result
from bnnbench.runs import run, signals, training
from bnnbench.runs.loggers import build_loggers, replay
from bnnbench.runs.mlflow import client_of
from bnnbench.runs.reuse import Run, needs_replay
from bnnbench.runs.run_log import About, outcome_of

from .. import reading

Compose = Callable[..., DictConfig]
FailAt = Callable[[pytest.MonkeyPatch, int, BaseException], None]
KEYS = ("csv", "wandb", "tensorboard", "mlflow")
EPOCH = {"epoch", "lr", "grad_norm", "epoch_s", "images_per_s", "train/loss", "train/acc"}
EPOCH |= {"train/kernel", "train/feature", "test/acc", "test/loss"}
LAST = {"test/acc", "test/loss", "test/top5", "test/nll", "test/brier", "test/ece"}
NUMBERS = {"operations/ops", "operations/params", "operations/packed_bytes", "last/test/acc"}
NUMBERS |= {"best/test/acc", "best/epoch", "time/wall_s", "time/images_per_s", "epochs"}
NUMBERS |= {"train_images", "test_images", "seed"}
TEXTS = {"quantizer", "dataset", "headline", "device", "fingerprint", "ended"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of MLflow's: to make one takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "logs" / "mlflow.db"
    client_of(f"sqlite:///{file}")
    assert sorted(each.name for each in file.parent.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    return file


@pytest.fixture(params=KEYS)
def key(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("tensorboard", "mlflow"):
        reason = f"bnnbench[{request.param}] is not installed"
        pytest.importorskip(request.param, reason=reason)
    if request.param == "mlflow":
        for logs in (tmp_path / "logs", tmp_path / "logs" / "later"):
            logs.mkdir(exist_ok=True)
            shutil.copy(request.getfixturevalue("database"), logs / "mlflow.db")
    return request.param


def small(short: list[str], *more: str) -> list[str]:
    two = ["trainer.max_epochs=2", "quantizer=bonn", "loss=bonn", "tags=[mine,7]"]
    return [*short, *two, *more]


def execute(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    return read_result(folder) or {}


class Found:
    """What one logger has, in one form: rows, summary, tags, histograms, texts of the config."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    tags: set[str]
    histograms: dict[str, int]
    config: Any
    status: Any = None

    @property
    def names(self) -> set[str]:
        return {name for row in self.rows for name in row}

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


def read(key: str, cfg: DictConfig) -> Found:
    return {"csv": of_csv, "wandb": of_wandb, "tensorboard": of_tensorboard, "mlflow": of_mlflow}[
        key
    ](Path(cfg.paths.output_dir), Path(cfg.paths.log_dir))


def of_csv(folder: Path, logs: Path) -> Found:
    found = Found()
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found.rows = [{k: float(v) for k, v in row.items() if v and k != "step"} for row in rows]
    with (folder / "summary.csv").open() as lines:
        (line,) = csv.DictReader(lines)
    found.summary = {k: v if k in TEXTS else _number(v) for k, v in line.items()}
    found.tags, found.histograms = set(line["tags"].split()), {}
    found.config = (folder / "hparams.yaml").read_text()
    return found


def of_wandb(folder: Path, logs: Path) -> Found:
    found, written = Found(), reading.wandb_runs(folder)
    assert len({each.run.run_id for each in written}) == 1
    rows = [row for each in written for row in each.history]
    numbers = [{k: v for k, v in r.items() if isinstance(v, int | float)} for r in rows]
    found.rows = [row for row in numbers if "trainer/global_step" in row]
    kinds = [k.removesuffix("._type") for r in rows for k, v in r.items() if v == "histogram"]
    found.histograms = {name: kinds.count(name) for name in kinds}
    last = written[-1]
    found.summary, found.tags, found.config = last.summary, set(last.run.tags), last.config
    assert last.axes["*"] == "epoch"
    found.status = [each.exit_code for each in written]
    return found


def of_tensorboard(folder: Path, logs: Path) -> Found:
    found, read = Found(), reading.read_tensorboard(folder)
    scalars = {name: read.Scalars(name) for name in read.Tags()["scalars"]}
    at: dict[int, dict[str, float]] = {}
    for name, points in scalars.items():
        if not name.startswith("summary/"):
            for point in points:
                at.setdefault(point.step, {})[name] = point.value
    found.rows = [at[step] for step in sorted(at)]
    texts = {
        name.removesuffix("/text_summary"): read.Tensors(name)[0].tensor_proto.string_val[0]
        for name in read.Tags()["tensors"]
    }
    found.summary = {n[8:]: v[-1].value for n, v in scalars.items() if n.startswith("summary/")}
    found.summary |= {n[8:]: t.decode() for n, t in texts.items() if n.startswith("summary/")}
    found.tags = set(texts["tags"].decode().split(", "))
    found.config = texts["config"].decode()
    found.histograms = {n: len(read.Histograms(n)) for n in read.Tags()["histograms"]}
    return found


def of_mlflow(folder: Path, logs: Path) -> Found:
    from mlflow import MlflowClient

    client, found = MlflowClient(f"sqlite:///{logs}/mlflow.db"), Found()
    (experiment,) = client.search_experiments(filter_string="name = 'bnnbench'")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    last = runs[-1]
    at: dict[int, dict[str, float]] = {}
    names = [name for name in last.data.metrics if not name.startswith("summary/")]
    for name in names:
        for point in client.get_metric_history(last.info.run_id, name):
            at.setdefault(point.step, {})[name] = point.value
    found.rows = [at[step] for step in sorted(at)]
    metrics, tags = last.data.metrics, last.data.tags
    found.summary = {n[8:]: v for n, v in metrics.items() if n.startswith("summary/")}
    found.summary |= {n[8:]: v for n, v in tags.items() if n.startswith("summary.")}
    found.tags, found.config = set(tags["tags"].split(", ")), last.data.params
    found.status = [each.info.status for each in runs]
    paths = {each.path for each in client.list_artifacts(last.info.run_id)}
    place = client.download_artifacts(last.info.run_id, "histograms.json") if paths else None
    taken = json.loads(Path(place).read_text())["histograms"] if place else []
    of = [each["name"] for each in taken]
    found.histograms = {name: of.count(name) for name in of}
    return found


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def check(key: str, found: Found, result: dict[str, Any]) -> None:
    """All that is asked of a logger, typed, and as the result has it."""
    assert found.names >= EPOCH | LAST
    for name in sorted(EPOCH - {"epoch"}):
        logged = found.column(name)
        expected = result["history"][name]
        assert logged[: len(expected)] == pytest.approx(expected, rel=1e-6), name
    for name in LAST:
        assert found.column(name)[-1] == pytest.approx(result["metrics"]["last"][name], rel=1e-6)
    for name in NUMBERS:
        assert isinstance(found.summary[name], int | float), name
    for name in TEXTS:
        assert isinstance(found.summary[name], str), name
    assert found.summary["operations/ops"] == result["operations"]["ops"]
    assert found.summary["quantizer"] == "bonn"
    assert found.summary["last/test/acc"] == pytest.approx(result["metrics"]["last"]["test/acc"])
    assert found.tags == {"mine", "7"}
    assert "recipe" in str(found.config)
    layers = result["statistics"]["layers"]
    if key != "csv":
        snapshots = {f"weights/{layer['name']}": len(layer["snapshots"]) for layer in layers}
        assert found.histograms == snapshots


def test_a_run_and_a_finished_one_reach_it_alike(
    compose: Compose, short: list[str], key: str
) -> None:
    """Live and from the stored result: the same names, numbers, summary, tags and histograms."""
    cfg = compose(*small(short, f"logger={key}"))
    result = execute(cfg)
    live = read(key, cfg)
    check(key, live, result)
    assert not needs_replay(Run(cfg, Path(cfg.paths.output_dir)))
    later = compose(*small(short, f"logger={key}", f"paths.log_dir={cfg.paths.log_dir}/later"))
    folder = Path(cfg.paths.output_dir).with_name("later")
    folder.mkdir()
    later.paths.output_dir = str(folder)
    (folder / "result.json").write_bytes((Path(cfg.paths.output_dir) / "result.json").read_bytes())
    assert needs_replay(Run(later, folder))
    replay(later, folder, result)
    found = read(key, later)
    check(key, found, result)
    assert found.names == live.names
    assert found.column("epoch") == live.column("epoch") or key == "csv"
    assert found.summary.keys() - {"_runtime"} >= {n for n in live.summary if "/" in n}
    assert logged_by(folder) == [key]
    assert not needs_replay(Run(later, folder))


def test_a_list_of_loggers_and_none(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "trainer.max_epochs=1", "logger=[csv,wandb]")
    result, folder = execute(cfg), Path(cfg.paths.output_dir)
    assert logged_by(folder) == ["csv", "wandb"]
    losses = [read(key, cfg).column("train/loss") for key in ("csv", "wandb")]
    assert losses == [result["history"]["train/loss"]] * 2
    more = compose(*short, "trainer.max_epochs=1", "logger=[csv,none]")
    assert list(more.logger) == ["csv"]
    assert not needs_replay(Run(more, folder))
    assert not needs_replay(Run(compose(*short, "logger=[]"), folder))


@pytest.mark.parametrize("how", ["failed", "cut"])
def test_how_a_run_ended_and_that_it_goes_on(
    compose: Compose,
    short: list[str],
    key: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    fail_at: FailAt,
) -> None:
    """A resumed run is the same one, with every epoch."""
    cfg = compose(*small(short, f"logger={key}"))
    error = KeyError("broken") if how == "failed" else signals.Ended(15)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, error)
        with pytest.raises(type(error)):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    ended = {"wandb": {"failed": 1, "cut": 255}, "mlflow": {"failed": "FAILED", "cut": "KILLED"}}
    if key == "wandb":
        (first,) = reading.wandb_runs(Path(cfg.paths.output_dir))
        assert first.exit_code == ended[key][how]
        assert first.history[0]["epoch"] == 0
        assert "train/loss" in first.history[0]
    elif key == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{cfg.paths.log_dir}/mlflow.db")
        (only,) = client.search_runs(["1"])
        assert only.info.status == ended[key][how]
    result = execute(cfg)
    found = read(key, cfg)
    check(key, found, result)
    if key in ended:
        assert found.status[-1] == {"wandb": 0, "mlflow": "FINISHED"}[key]
        assert len(found.status) == {"wandb": 2, "mlflow": 1}[key]


STAGES = "recipe.stages=[{name: first, set: {trainer.max_epochs: 1}}, "
STAGES += "{name: second, init_from: previous, set: {trainer.max_epochs: 1}}]"


def test_stages_are_one_run_counted_through(compose: Compose, short: list[str], key: str) -> None:
    cfg = compose(*small(short, f"logger={key}", STAGES))
    result = execute(cfg)
    found = read(key, cfg)
    if key in ("tensorboard", "mlflow"):  # rows of a step are one there
        assert found.column("epoch") == [0, 1, 1, 2]
    assert sorted(set(found.column("epoch"))) == [0, 1, 2]
    assert found.column("train/loss") == pytest.approx(result["history"]["train/loss"])
    assert found.column("grad_norm") == pytest.approx(result["history"]["grad_norm"])
    if key != "csv":
        taken = outcome_of(result, Path(cfg.paths.output_dir)).histograms
        for _ in range(20):  # wandb's own process may still write where the machine is busy
            if sum(found.histograms.values()) == len(taken):
                break
            time.sleep(0.5)
            found = read(key, cfg)
        assert sum(found.histograms.values()) == len(taken)
        assert [h.epoch for h in taken] == sorted(h.epoch for h in taken)
        assert max(h.epoch for h in taken) == 2


SHAPES = ["dataset=shapes", "backbone=ssd300_resnet18", "quantizer=xnor", "trainer.max_epochs=1"]
SHAPES += ["++dataset.generate.trainval=8", "++dataset.generate.test=4", "dataset.batch_size=2"]


def test_pictures_of_detectors_reach_it(compose: Compose, short: list[str], key: str) -> None:
    cfg = compose(*short, *SHAPES, f"logger={key}", "+trainer.limit_test_batches=1")
    execute(cfg)
    folder = Path(cfg.paths.output_dir)
    names = {"boxes", "precision_recall"}
    assert {file.stem for file in folder.glob("pictures/*.png")} == names
    if key == "wandb":
        rows = reading.wandb_runs(folder)[0].history
        logged = {k.split("._type")[0] for row in rows for k, v in row.items() if v == "image-file"}
        assert logged == {f"pictures/{name}" for name in names}
    elif key == "tensorboard":
        read = reading.read_tensorboard(folder)
        assert set(read.Tags()["images"]) == {f"pictures/{name}" for name in names}
        (image,) = read.Images("pictures/boxes")
        assert min(image.width, image.height) > 50
    elif key == "mlflow":
        files = Path(cfg.paths.log_dir).glob("mlflow/*/artifacts/pictures/*.png")
        assert {file.stem for file in files} == names


def test_an_evaluation_is_a_run_of_its_own(compose: Compose, short: list[str], key: str) -> None:
    trained = compose(*small(short, "trainer.max_epochs=1"))
    result, folder = execute(trained), Path(trained.paths.output_dir)
    evaluation = folder.with_name("evaluation")
    evaluation.mkdir()
    cfg = compose(
        f"logger={key}",
        "train=false",
        f"ckpt_path={folder}/checkpoints/last.ckpt",
        f"paths.output_dir={evaluation}",
        "tags=[mine,7]",
        "trainer.accelerator=cpu",
    )
    run.execute(cfg, evaluation, quiet=True)
    found = read(key, cfg)
    score = result["metrics"]["last"]["test/acc"]
    assert found.column("test/acc") == pytest.approx([score])
    assert found.summary["last/test/acc"] == pytest.approx(score)
    assert found.tags == {"mine", "7"}
    assert "ckpt_path" in str(found.config)
    if key == "wandb":
        assert reading.wandb_runs(evaluation)[0].run.job_type == "evaluate"


def test_a_histogram_in_an_event_file_is_the_weights(compose: Compose, short: list[str]) -> None:
    pytest.importorskip("tensorboard", reason="bnnbench[tensorboard] is not installed")
    cfg = compose(*small(short, "logger=tensorboard"))
    layer = execute(cfg)["statistics"]["layers"][0]
    read = reading.read_tensorboard(Path(cfg.paths.output_dir))
    last = read.Histograms(f"weights/{layer['name']}")[-1]
    taken = layer["snapshots"][-1]
    assert last.step == taken["step"]
    counts = np.array(last.histogram_value.bucket)
    assert counts[counts > 0].tolist() == [float(c) for c in taken["counts"] if c]
    limits = np.array(last.histogram_value.bucket_limit)[counts > 0]
    edges = np.linspace(-taken["range"], taken["range"], len(taken["counts"]) + 1)
    assert limits == pytest.approx(edges[1:][np.array(taken["counts"]) > 0])
    assert last.histogram_value.max == pytest.approx(taken["range"])
    assert last.histogram_value.num == sum(taken["counts"])


@pytest.mark.parametrize("missing", ["tensorboard", "mlflow"])
def test_a_missing_package_names_its_extra_before_anything_is_read(
    compose: Compose, short: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnnbench.checks import packages

    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    cfg = compose(*short, f"logger={missing}")

    def never(*_: Any) -> None:
        raise AssertionError("data are read")

    monkeypatch.setattr(training, "build_datamodule", never)
    with pytest.raises(ValueError, match=rf"logger={missing} needs .*bnnbench\[{missing}\]"):
        execute(cfg)
    assert not (Path(cfg.paths.output_dir) / "checkpoints").exists()


@pytest.mark.parametrize("uri", ["file:/tmp/mlruns", "mlruns", "nonsense://x", ""])
def test_a_store_that_mlflow_has_not_is_told(compose: Compose, uri: str) -> None:
    pytest.importorskip("mlflow", reason="bnnbench[mlflow] is not installed")
    cfg = compose("logger=mlflow", f"logger.mlflow.tracking_uri='{uri}'")
    with pytest.raises(ValueError, match=r"logger\.mlflow\.tracking_uri=.*: give a database"):
        build_loggers(cfg, About("a_run"))


def test_a_logger_of_somebody_elses(compose: Compose, short: list[str], tmp_path: Path) -> None:
    mine = "+logger.mine={_target_: lightning.pytorch.loggers.CSVLogger, save_dir: "
    cfg = compose(*small(short, f"{mine}{tmp_path}/mine, name: a}}"))
    execute(cfg)
    with next((tmp_path / "mine").rglob("metrics.csv")).open() as lines:
        names = {name for row in csv.DictReader(lines) for name, value in row.items() if value}
    assert EPOCH | LAST | {"operations/ops", "best/test/acc"} <= names
    assert logged_by(Path(cfg.paths.output_dir)) == ["mine"]
    bad = compose(*short, "+logger.mine={_target_: builtins.dict}")
    with pytest.raises(ValueError, match=r"logger\.mine\._target_=builtins\.dict: .* no logger"):
        build_loggers(bad, About("a_run"))
