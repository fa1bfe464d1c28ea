"""One run on two processes of a CPU, as `trainer=ddp` starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from bnnbench.data.device_loader import DeviceLoader
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.signature import (
    BadCheckpoint,
    Signature,
    check_signature,
    full_config,
    sign,
)
from bnnbench.records.store import write_identity
from bnnbench.runs.build import build_datamodule, build_task
from bnnbench.runs.reuse import Run, check_owner
from bnnbench.sweep.devices import check_processes

ROOT = Path(__file__).resolve().parents[2]
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
STEP = ["quantizer=xnor", "backbone=resnet20", "trainer.max_epochs=1", "dataset.batch_size=32"]
STEP += ["+trainer.limit_train_batches=1", "logger=none", "compile=false", "recipe.optimizer=sgd"]
STEP += ["recipe.schedule=constant", "recipe.lr=0.1", "recipe.weight_decay=0"]


def train(*overrides: str, logs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "src" / "train.py"), *overrides]
    folders = [f"paths.log_dir={logs}", f"paths.data_dir={logs}/data"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT")}
    # a run that waits for ever is killed with the processes that it started
    with subprocess.Popen(
        [*command, *folders],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=logs,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def averaged_step(cfg: DictConfig) -> dict[str, torch.Tensor]:
    """The parameters after one step of plain SGD on the mean gradient of both shards."""
    L.seed_everything(cfg.seed)
    data: Any = build_datamodule(cfg)
    task = build_task(cfg)
    data.prepare_data()
    data.setup("fit")
    images, labels = data.parts["train"]
    gradients: list[list[torch.Tensor]] = []
    for rank in (0, 1):
        loader = DeviceLoader(
            images, labels, data.augmentation, 32, True, lambda: 0, cfg.dataset.seed, rank, 2
        )
        batch, targets = next(iter(loader))
        loss = task.loss(task.net.train()(batch), targets)
        gradients.append(list(torch.autograd.grad(loss, list(task.net.parameters()))))
    return {
        name: weight.detach() - 0.1 * (first + second) / 2
        for (name, weight), first, second in zip(
            task.net.named_parameters(), *gradients, strict=True
        )
    }


def test_two_processes_take_one_step_together(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    done = train(*STEP, *TWO, "force=true", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("% in the last epoch") == 1
    assert done.stderr.count("trainer.sync_batchnorm needs GPUs") == 1
    (file,) = tmp_path.glob("runs/*/result.json")
    result = json.loads(file.read_text())
    counted = (result["world_size"], result["train_images"], result["test_images"])
    assert counted == (2, 64, 360)
    state = torch.load(file.parent / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, expected in averaged_step(compose(*STEP)).items():
        assert torch.allclose(state[f"net.{name}"], expected, atol=1e-6), name
    alone = train("train=false", f"ckpt_path={file.parent}/checkpoints/last.ckpt", logs=tmp_path)
    assert f"{100 * result['metrics']['last']['test/acc']:.2f} % on 360" in alone.stdout


def test_terms_and_a_bar_end(tmp_path: Path) -> None:
    """A bar asks for the epoch's means in the first process alone."""
    done = train(*STEP, "loss=kurtosis", *TWO, logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("% in the last epoch") == 1


def test_a_sweep_refuses_runs_of_several_processes(compose: Callable[..., DictConfig]) -> None:
    launcher = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    with pytest.raises(ValueError, match="2 processes a run"):
        check_processes([compose(*TWO)], {"_target_": launcher})
    with pytest.raises(ValueError, match="2 processes a run"):
        check_processes([compose(*TWO)], {"_target_": "a.b.LocalLauncher", "tasks_per_node": 2})
    check_processes([compose("trainer=ddp", "trainer.devices=1")], {"_target_": launcher})


@pytest.mark.parametrize(
    ("typed", "asked", "words"),
    [
        ([], {}, None),
        (TWO, {"tasks_per_node": 2}, None),
        ([*TWO, "+trainer.num_nodes=3"], {"tasks_per_node": 2, "nodes": 3}, None),
        (TWO, {}, "set hydra.launcher.tasks_per_node=2"),
        ([], {"tasks_per_node": 4}, "set hydra.launcher.tasks_per_node=1"),
        ([*TWO, "+trainer.num_nodes=3"], {"tasks_per_node": 2}, "set hydra.launcher.nodes=3"),
        (["trainer=ddp"], {"tasks_per_node": 4}, "give their number"),
    ],
)
def test_slurm_starts_as_many_processes_as_a_run_has(
    compose: Callable[..., DictConfig],
    typed: list[str],
    asked: dict[str, Any],
    words: str | None,
) -> None:
    launcher = {"_target_": "hydra_plugins.hydra_submitit_launcher.SlurmLauncher", **asked}
    with pytest.raises(ValueError, match=words) if words else nullcontext():
        check_processes([compose(*typed)], launcher)


LONG = [word for word in STEP if not word.startswith("trainer.max_epochs")]
LONG += ["trainer.max_epochs=500", *TWO, "trainer.enable_progress_bar=false"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run_and_its_reason_stays(tmp_path: Path, rank: int) -> None:
    command = [sys.executable, str(ROOT / "src" / "train.py"), *LONG]
    first = subprocess.Popen(
        [*command, f"paths.log_dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    children = Path(f"/proc/{first.pid}/task").glob("*/children")
    (second,) = {int(pid) for file in children for pid in file.read_text().split()}
    os.kill(second if rank else first.pid, signal.SIGKILL)
    killed = time.monotonic()
    _, stderr = first.communicate(timeout=60)  # the second one holds the pipe as well
    assert time.monotonic() - killed < 60
    (file,) = tmp_path.glob("runs/*/error.txt")
    if rank:
        assert first.returncode == 1
        expected = f"process 1 of this run, {second}, was killed by SIGKILL"
        assert expected in stderr.splitlines()[-1]
        assert "Traceback" not in stderr
    else:
        expected = f"the first process of this run, {first.pid}, died"
    assert file.read_text().startswith(expected)
    while alive(second):  # it lets go of the pipe a little before it is gone
        assert time.monotonic() - killed < 60
        time.sleep(0.1)


@pytest.mark.parametrize("processes", [1, 4])
def test_a_checkpoint_of_two_processes_is_no_other_numbers(
    compose: Callable[..., DictConfig], tmp_path: Path, processes: int
) -> None:
    """Batch norm and batches are those of two: it is another run, and its files stay."""
    ddp = ["trainer=ddp", "trainer.accelerator=cpu"]
    two, other = (compose(*STEP, *ddp, f"trainer.devices={n}") for n in (2, processes))
    whose = [
        Signature(run_name(c), fingerprint(c), None, full_config(c), None, ["0"], [0.0], [1.0])
        for c in (two, other)
    ]
    content: dict[str, Any] = {"state_dict": {}, "epoch": 0, "global_step": 1}
    sign(content, whose[0])
    torch.save(content, file := tmp_path / "last.ckpt")
    check_signature(file, whose[0])
    with pytest.raises(BadCheckpoint, match=rf"\(trainer.devices=2, here {processes}\)"):
        check_signature(file, whose[1])
    write_identity(tmp_path, {**asdict(whose[0]), "data_stamp": None})
    with pytest.raises(ValueError, match=r"holds another run, .* choose another folder"):
        check_owner(Run(other, tmp_path))
    check_owner(Run(two, tmp_path))
