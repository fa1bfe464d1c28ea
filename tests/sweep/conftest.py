"""A small Hydra app with the project's config keys, in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

TRAIN = """
defaults:
  - _self_
  - quantizer: adabin
  - loss: task
  - backbone: resnet18
  - dataset: digits
  - recipe: unified
  - table: none
  - scale: demo
  - hparams_search: none
  - trainer: default
  - logger: none
  - paths: default
  - override hydra/sweeper: bnnbench
  - override hydra/launcher: workers
seed: 0
train: true
ckpt_path: null
init_from: null
force: false
tags: []
callbacks: {history: {_target_: bnnbench.callbacks.history.History}}
hydra:
  run: {dir: "${paths.runs_dir}/${run_name:}"}
  sweep: {dir: "${paths.runs_dir}", subdir: "${run_name:}"}
"""
PATHS = """
log_dir: ${oc.env:APP_LOGS}
data_dir: ${paths.log_dir}/data
data_mark: null
runs_dir: ${paths.log_dir}/runs
sweeps_dir: ${paths.log_dir}/sweeps
results_dir: ${paths.log_dir}/results
output_dir: ${hydra:runtime.output_dir}
"""
TABLE = """
name: small
title: a table
published: null
notes: []
common: [dataset=cifar10, trainer.max_epochs=7]
sweep:
  - backbone=resnet18 quantizer=fp32,adabin
  - backbone=resnet20 quantizer=xnor
scales:
  demo: {sweep: [backbone=resnet20 quantizer=xnor], note: only one row}
"""
RATE = """
name: rate
trials: 4
seed: 0
params: {recipe.lr: "tag(log, interval(1e-4, 1))"}
"""
OPTIONS = {
    "train": TRAIN,
    "quantizer/fp32": "name: fp32\nshortcut: block\nweight: {scale: 1.0, kind: identity}",
    "quantizer/adabin": "name: adabin\nshortcut: conv\nt_min: 1.0e-3\nweight: {low: '${..t_min}'}",
    "quantizer/xnor": "name: xnor\nshortcut: block",
    "quantizer/boom": "name: boom\nshortcut: block",
    "loss/task": "name: task\nlabel_smoothing: 0.0",
    "backbone/resnet18": "name: resnet18\nshortcut: ${quantizer.shortcut}\nbetas: [0.9, 0.999]",
    "backbone/resnet20": "name: resnet20\nshortcut: ${quantizer.shortcut}\nbetas: [0.9, 0.999]",
    "dataset/digits": "name: digits\nworkers: auto\nval_fraction: 0.0\ndata_dir: ${paths.data_dir}",
    "dataset/cifar10": "name: cifar10\nval_fraction: 0.0\ndata_dir: ${paths.data_dir}",
    "dataset/absent": "name: absent\nval_fraction: 0.0\ndata_dir: ${paths.data_dir}",
    "recipe/unified": "name: unified\nlr: 0.003\nepochs: {digits: 10, cifar10: 200, absent: 1}",
    "recipe/native": "name: native\nlr: 0.1\nepochs: {digits: 5, cifar10: 400, absent: 1}",
    "trainer/default": "max_epochs: ${recipe.epochs.${dataset.name}}\naccelerator: cpu",
    "table/none": "name: none",
    "table/small": TABLE,
    "scale/demo": "name: demo\noverrides: [dataset=digits]\nseeds: [0]\nnote: demo digits",
    "scale/full": "name: full\noverrides: []\nseeds: [0, 1]\nnote: null",
    "hparams_search/none": "name: none",
    "hparams_search/rate": RATE,
    "logger/none": "{}",
    "logger/wandb": "wandb:\n  _target_: a.logger\n  group: null",
    "paths/default": PATHS,
}


@dataclass
class App:
    """The app's folder, and what its runs left in it."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "app.py"), *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        dropped = ("OMP_NUM_THREADS", "HYDRA_FULL_ERROR")
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        logs = {
            "APP_LOGS": str(self.logs),
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        return kept | logs | {"BNNBENCH_WORKERS": "2"} | extra

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def executed(self) -> list[str]:
        """One line `quantizer seed sweep` for each run that was started."""
        file = self.logs / "executed.txt"
        return file.read_text().splitlines() if file.exists() else []

    def results(self) -> list[Path]:
        return sorted(self.logs.glob("runs/*/result.json"))

    def manifest(self) -> dict[str, Any]:
        (file,) = self.logs.glob("sweeps/*/sweep.json")
        return json.loads(file.read_text())


@pytest.fixture(scope="session")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config folder."""
    folder = tmp_path_factory.mktemp("app") / "conf"
    for name, text in OPTIONS.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "hydra" / "launcher").mkdir(parents=True)
    for file in (ROOT / "conf/hydra/launcher").glob("*.yaml"):
        shutil.copy(file, folder / "hydra/launcher")
    return folder


@pytest.fixture
def app(conf: Path, tmp_path: Path) -> App:
    """The app with an output folder of its own."""
    shutil.copytree(conf, tmp_path / "conf")
    shutil.copy(HERE / "app.py", tmp_path)
    (tmp_path / "logs").mkdir()
    return App(tmp_path)
