"""What a user types, and what comes back; each test is a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SECONDS = ["trainer.max_epochs=1", "+trainer.limit_train_batches=2", "trainer.accelerator=cpu"]


def train(*arguments: str, logs: Path) -> subprocess.CompletedProcess[str]:
    """`python src/train.py ...` without network, with its logs in ``logs``."""
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {"https_proxy": nowhere, "http_proxy": nowhere}
    environment |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    environment.pop("BNNBENCH_DATA", None)
    folders = [f"paths.log_dir={logs}", f"paths.data_dir={logs}/data"]
    return subprocess.run(
        [sys.executable, str(ROOT / "src" / "train.py"), *arguments, *folders],
        capture_output=True,
        text=True,
        env=environment,
        cwd=logs,
        timeout=600,
        check=False,
    )


def test_a_sweep_ends_in_its_table_and_trains_nothing_twice(tmp_path: Path) -> None:
    command = ["-m", "quantizer=adabin,xnor,birealnet", "backbone=resnet20", "logger=wandb"]
    first = train(*command, *SECONDS, logs=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = re.findall(r"^\| (adabin|xnor|birealnet) +\|", first.stdout, flags=re.MULTILINE)
    assert rows == ["adabin", "xnor", "birealnet"]
    tables = list((tmp_path / "sweeps").glob("*/table.*"))
    assert {path.suffix for path in tables} == {".md", ".csv", ".tex"}
    results = sorted((tmp_path / "runs").glob("*/result.json"))
    assert len(results) == 3
    assert len(list(tmp_path.glob("runs/*/wandb/offline-run-*"))) == 3  # none wrote into another's
    assert len(list(tmp_path.glob("sweeps/*/wandb/offline-run-*"))) == 1
    written = [path.stat().st_mtime_ns for path in results]
    second = train(*command[:-1], *SECONDS, logs=tmp_path)
    assert "3 runs are finished, 0 to run" in second.stderr
    assert [path.stat().st_mtime_ns for path in results] == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantizer=adabinn"], "adabin\n"),
        (["-m", "quantizer=adabin,xnorr"], "xnor\n"),
        (["trainer.max_epoch=3"], "max_epochs"),
        (["-m", "quantizer=adabin,xnor", "recipe.learning_rate=1"], "lr"),
        (["-m", "quantizer=xnor,bnn", "backbone.nonlinearity=relu"], "constant"),
        (["-m", "quantizer=xnor,bnn", "dataset=cifar100"], "BNNBENCH_DATA"),
        (["-m", "quantizer=xnor,bnn", "init_from=nowhere.ckpt"], "nowhere.ckpt"),
        (["dataset=cifar10"], "BNNBENCH_DATA"),
        (["init_from=nowhere.ckpt"], "nowhere.ckpt"),
        (["teacher=run", "teacher.folder=nowhere"], "nowhere"),
        (["seed=lucky"], "seed=lucky: give a whole number"),
        (["-m", "quantizer=xnor,bnn", "compile=ture"], "compile=ture: give auto"),
        (["train=false"], "ckpt_path"),
        (["+debug=fdr"], "+debug=fdr: the config has debug already: type debug=fdr"),
        (["-m", "++quantizer=xnor,bnn"], "type quantizer=xnor,bnn"),
        (["logger=[csv,foo]"], "there is no foo; choose of csv, mlflow, none, tensorboard, wandb"),
        (["logger=null"], "leave it out, or choose one of csv, mlflow, none, tensorboard, wandb"),
        (["~recipe"], "give recipe=<value>"),
        (["-m", "~tags", "seed=0,1"], "give tags=<value>"),
        (["+recipe=native"], "type recipe=native"),
        (["scale=demo"], "scale=demo is the scale of a table: add table=<name>"),
        (["-m", "quantizer=xnor,bnn", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
    ],
)
def test_a_mistake_is_explained_before_anything_is_trained(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = train(*arguments, logs=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert "exception formatting" not in done.stderr
    assert not list(tmp_path.glob("runs/*/checkpoints/*.ckpt"))


def test_an_evaluation_of_nothing_leaves_no_folder(tmp_path: Path) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_text("no checkpoint")
    for words, told in (
        ([], "an evaluation needs a checkpoint: set ckpt_path=<file>"),
        ([f"ckpt_path={bad}"], "cannot be read as a checkpoint"),
    ):
        done = train("train=false", *words, logs=tmp_path)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr
        assert not list(tmp_path.glob("runs/*"))


def test_a_network_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    done = train("backbone=timm", "backbone.name=vit_tinyy", logs=tmp_path)
    assert (done.returncode, "vit_tiny" in done.stderr) == (1, True), done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_a_mistake_ends_a_run_also_where_tracebacks_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra itself warns of what a callback raises, and goes on."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = train("backbone=resnet20", "tags=abc", "trainer.max_epochs=0", logs=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "tags=abc: give a list" in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_a_forced_run_that_fails_keeps_the_result(tmp_path: Path) -> None:
    counts = ["-m", "quantizer=xnor,dorefa", "backbone=resnet20", *SECONDS]
    assert train(*counts, logs=tmp_path).returncode == 0
    kept = {path: path.read_bytes() for path in tmp_path.glob("runs/*/result.json")}
    assert len(kept) == 2
    for mistake in ("compile=ture", "+trainer.profiler=nosuch"):
        assert train(*counts, "force=true", mistake, logs=tmp_path).returncode == 1
        assert {path: path.read_bytes() for path in tmp_path.glob("runs/*/result.json")} == kept
    again = train(*counts, logs=tmp_path)
    assert "2 runs are finished, 0 to run" in again.stderr


def test_a_sweep_over_image_files_decodes_them_in_processes_of_its_jobs(tmp_path: Path) -> None:
    """With the default launcher and the default number of decoding processes."""
    random = np.random.default_rng(0)
    for split, images in (("train", 8), ("val", 4)):
        for number in range(2 * images):
            folder = tmp_path / "tree" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    data = ["dataset=imagenet", f"dataset.folder={tmp_path / 'tree'}", "dataset.num_classes=2"]
    sizes = ["dataset.image_size=32", "dataset.batch_size=4", "backbone=resnet20"]
    ended = train("-m", "quantizer=xnor,bnn", *data, *sizes, *SECONDS, logs=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 2
