"""What docs/lightning.md types works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as pl
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

import bnnbench
from bnnbench.data import ImageDataModule
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.runs import build
from bnnbench.tasks.classification import Classification

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "lightning.md").read_text("utf-8")
Compose = Callable[..., DictConfig]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def files() -> dict[str, str]:
    """The files that the page prints, by their names."""
    found = re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(found) == 3
    return dict(found)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the page's files."""
    for name, text in files().items():
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "own"


@pytest.fixture
def discs(own: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's module."""
    monkeypatch.syspath_prepend(own)
    monkeypatch.delitem(sys.modules, "discs", raising=False)
    import discs  # pyright: ignore[reportMissingImports]

    return discs


def test_the_command_of_the_page_ends_in_its_table(own: Path) -> None:
    (command,) = blocks("bash")
    environment, program, train, *words = shlex.split(command)
    assert (environment, program, train) == ("PYTHONPATH=.", "bnnbench", "train")
    done = subprocess.run(
        [sys.executable, "-m", "bnnbench", "train", *words, "paths.log_dir=logs"],
        cwd=own,
        env=os.environ | {"PYTHONPATH": f".{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| +(0\.\d) +\| +1/1 \| +(\d+\.\d+)", done.stdout, re.M)
    assert [penalty for penalty, _ in rows] == ["0.1", "0.3"]
    assert all(float(accuracy) > 80 for _, accuracy in rows)  # guessing gets 50 %
    results = [json.loads(f.read_text()) for f in own.glob("logs/runs/*/result.json")]
    assert {r["config"]["task"]["penalty"] for r in results} == {0.1, 0.3}


def typed(**changed: str) -> list[str]:
    """Overrides of a run with the page's task on digits."""
    words = {"_target_": "discs.Humble", "penalty": "0.1"} | changed
    added = [f"+task.{key}={value}" for key, value in words.items() if key != "_target_"]
    return ["backbone=resnet20", f"task._target_={words['_target_']}", *added]


def test_the_page_s_loss_pays_for_confidence(compose: Compose, discs: ModuleType) -> None:
    task = build.build_task(compose(*typed()))
    assert type(task) is discs.Humble
    sure, unsure = torch.tensor([[9.0, -9.0]]), torch.zeros(1, 2)
    assert float(discs.entropy(unsure)) == pytest.approx(0.6931, abs=1e-4)
    assert float(discs.entropy(sure)) < 0.01
    assert list(task.terms) == ["confidence"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"_target_": "discs.Humbl"}, r"task\._target_=discs\.Humbl: .*no attribute"),
        ({"_target_": "disc.Humble"}, r"No module named 'disc'; its folder .* on PYTHONPATH"),
        ({"_target_": "lightning.LightningModule"}, "needs a class that inherits from"),
        ({"_target_": "discs.entropy"}, "needs a class that inherits from"),
        ({"_target_": "discs.Discs"}, r"bnnbench\.tasks\.classification\.Classification"),
        ({"penalty": "high"}, r"task\.penalty=high: give a number"),
        ({"penlty": "1"}, r"task\._target_=discs\.Humble takes no penlty"),
    ],
)
def test_a_mistake_is_told_before_a_run(
    compose: Compose, discs: ModuleType, changed: dict[str, str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        build.build_task(compose(*typed(**changed)))


def test_data_of_another_kind_are_refused(compose: Compose, discs: ModuleType) -> None:
    for name in ("discs.Humble", "lightning.LightningDataModule"):
        with pytest.raises(ValueError, match=rf"dataset\._target_={name}: a run needs a class"):
            build.build_datamodule(compose(f"dataset._target_={name}"))
    with pytest.raises(ValueError, match=r"PYTHONPATH"):
        build.build_datamodule(compose("dataset._target_=elsewhere.Data"))


def test_arguments_that_a_class_has_to_have_are_named(compose: Compose, discs: ModuleType) -> None:
    with pytest.raises(
        ValueError, match=r"discs\.Humble needs penalty: .* \+task\.penalty=<value>"
    ):
        build.build_task(compose("backbone=resnet20", "task._target_=discs.Humble"))
    cfg = compose("dataset._target_=discs.Discs")
    node = {key: cfg.dataset[key] for key in ("_target_", "name", "num_classes", "in_channels")}
    cfg.dataset = OmegaConf.create(node)
    told = r"discs\.Discs needs image_size, mean, std, .* \+dataset\.image_size=<value>"
    with pytest.raises(ValueError, match=told):
        build.build_datamodule(cfg)


def test_a_trusted_class_is_evaluated_on_its_own_data(own: Path) -> None:
    def bnnbench(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bnnbench", *words, "paths.log_dir=logs"],
            cwd=own,
            env=os.environ | {"PYTHONPATH": f".{os.pathsep}{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=False,
        )

    words = ["experiment=humble", "trainer.max_epochs=1", "+trainer.limit_train_batches=2"]
    trained = bnnbench("train", "--config-dir", "conf", *words)
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = own.glob("logs/runs/*/checkpoints/last.ckpt")
    refused = bnnbench("evaluate", f"ckpt_path={checkpoint}")
    assert refused.returncode == 1
    assert "name its package: trust=[discs]" in refused.stderr
    done = bnnbench("evaluate", f"ckpt_path={checkpoint}", "trust=[discs]")
    assert done.returncode == 0, done.stderr
    assert "on 200 test images of discs" in done.stdout
    code, start = own / "discs.py", "def __init__(self, **spec: Any) -> None:\n"
    placed = 'def __init__(self, data_dir: str = "/own", **spec: Any) -> None:\n'
    assert start in code.read_text()
    code.write_text(code.read_text().replace(start, f"{placed}        print('in', data_dir)\n"))
    for typed, place in ([], "/own"), (["dataset.data_dir=/typed"], "/typed"):
        done = bnnbench("evaluate", f"ckpt_path={checkpoint}", "trust=[discs]", *typed)
        assert f"in {place}\n" in done.stdout, done.stderr


def test_tasks_of_one_name_in_two_modules_are_two_runs(compose: Compose) -> None:
    from bnnbench.records.fingerprint import fingerprint

    usual, one, other = (
        fingerprint(compose(*words))
        for words in ([], ["task._target_=a.Mine"], ["task._target_=b.Mine"])
    )
    assert len({usual, one, other}) == 3


def test_python_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    for block in blocks("python")[1:]:
        exec(block, names)
    averaged, measured_again = re.findall(r"^(0\.\d+)$", capsys.readouterr().out, re.M)
    assert float(averaged) > 0.3  # guessing gets 0.1
    assert float(measured_again) > 0.3


CALLBACKS: dict[str, Callable[[], pl.Callback]] = {
    "early": lambda: pl.EarlyStopping("val/acc", mode="max", patience=1),
    "ema": lambda: pl.EMAWeightAveraging(decay=0.9),
    "swa": lambda: pl.StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1),
    "rate": lambda: pl.LearningRateMonitor("step"),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_people_use_train_a_binary_network(name: str, tmp_path: Path) -> None:
    net = bnnbench.build_backbone("resnet20", "xnor", in_channels=1, image_size=8)
    recipe = Recipe("adam", 1e-2, schedule="constant")
    task = Classification(net, task_loss("classification"), recipe, 10, evaluates_on="val")
    shape = {"num_classes": 10, "in_channels": 1, "image_size": 8, "mean": [0.3], "std": [0.35]}
    rest = {"batch_size": 64, "pad": 0, "flip": False, "seed": 0, "val_fraction": 0.2}
    data = ImageDataModule(name="digits", data_dir=str(tmp_path), **shape, **rest)
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=4,
        log_every_n_steps=1,
        accelerator="cpu",
        callbacks=[CALLBACKS[name]()],
        logger=CSVLogger(tmp_path, "log"),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    assert 0 <= trainer.test(task, data, verbose=False)[0]["test/acc"] <= 1
    if name == "rate":
        assert "lr-" in next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0]
