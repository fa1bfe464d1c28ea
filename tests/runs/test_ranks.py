"""Several processes train what one would, and agree on all that they hold; over gloo, on a CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from bnnbench.config import options
from bnnbench.runs.build import build_datamodule, build_task

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHORT = ["backbone=resnet20", "trainer.max_epochs=2", "+trainer.limit_train_batches=2"]
SHORT += ["dataset.batch_size=16"]
NO_EVALUATION = "+trainer.limit_val_batches=0"  # on the way: nothing but a step's end keeps in step
NEEDS = {"wage": ["recipe=native"], "bayesbinn": ["recipe=bayesbinn"]}
STEPS = ["loss.terms.kernel.statistics=sgd", "loss.terms.feature.statistics=sgd"]
LOSSES = {
    "bonn": ["quantizer=bonn", "loss=bonn", "loss.theta=0.1"],
    "bonn_steps": ["quantizer=bonn", "loss=bonn", *STEPS],
    "bbb": ["quantizer=bbb", "loss=bbb"],
    "pcnn": ["quantizer=pcnn", "loss=pcnn", "loss.eta=0.1"],
    "mcn": ["quantizer=mcn", "loss=mcn"],
    "kurtosis": ["quantizer=xnor", "loss=kurtosis"],
    "kd": ["quantizer=xnor", "loss=kd", "teacher=joint"],
    "drawn": ["quantizer=bnn", "quantizer.stochastic=true"],
    "mixed": ["quantizer=xnor", "dataset.mixup=0.2", "dataset.augmentation=randaugment"],
}


def together(folder: Path, cases: Mapping[str, list[str]], ranks: int) -> dict[str, list[Any]]:
    """What each rank ends with, by case."""
    file = folder / f"cases_{ranks}.json"
    file.write_text(json.dumps(dict(cases)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "NODE_RANK": "0"}
    said = [folder / f"said_{rank}.txt" for rank in range(ranks)]
    processes = []
    try:
        for rank, text in enumerate(said):
            with text.open("w") as stderr:  # a full pipe would keep all ranks waiting
                process = subprocess.Popen(
                    [sys.executable, str(HERE / "rank.py"), str(folder), str(file)],
                    env=os.environ | common | {"LOCAL_RANK": str(rank)},
                    stderr=stderr,
                )
            processes.append(process)
        for process, text in zip(processes, said, strict=True):
            assert process.wait(timeout=600) == 0, text.read_text()
    finally:
        for process in processes:
            process.kill()
    return {
        name: [
            torch.load(folder / f"{name}_{ranks}_{rank}.pt", weights_only=False)
            for rank in range(ranks)
        ]
        for name in cases
    }


def leaves(node: Any, place: str = "") -> dict[str, Any]:
    """Everything that is no container, by its place."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found: dict[str, Any] = {}
    for key, value in items:
        inside = isinstance(value, dict | list | tuple)
        found |= leaves(value, f"{place}/{key}") if inside else {f"{place}/{key}": value}
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Places at which two ranks hold different bits."""
    left, right = (leaves({k: r[k] for k in ("state", "terms")}) for r in (one, other))
    assert left.keys() == right.keys()
    return [place for place, value in left.items() if not same(value, right[place])]


def same(value: Any, other: Any) -> bool:
    return torch.equal(value, other) if isinstance(value, Tensor) else value == other


def test_every_method_and_loss_agrees_on_all_ranks(tmp_path: Path) -> None:
    cases = {name: [f"quantizer={name}", *NEEDS.get(name, [])] for name in options("quantizer")} | {
        f"loss_{name}": words for name, words in LOSSES.items()
    }
    cases = {name: [*SHORT, NO_EVALUATION, *words] for name, words in cases.items()}
    found = together(tmp_path, cases, 2)
    wrong = {name: differing(*ranks)[:3] for name, ranks in found.items() if differing(*ranks)}
    assert wrong == {}
    for name, (first, second) in found.items():
        assert first["measured"] == second["measured"], name


ODD = ["dataset.val_fraction=0.0703"]  # 101 images: no multiple of two ranks, or of four
PLAIN = ["recipe.optimizer=sgd", "recipe.schedule=constant", "recipe.lr=0.01", "seed=3"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_samples_and_metrics_are_those_of_one_process(
    compose: Callable[..., DictConfig], tmp_path: Path, ranks: int
) -> None:
    case = [*SHORT, "quantizer=xnor", *ODD, "dataset.augmentation=trivialaugment"]
    (one,) = together(tmp_path, {"case": [*case, "dataset.batch_size=32"]}, 1)["case"]
    several = together(tmp_path, {"case": [*case, f"dataset.batch_size={32 // ranks}"]}, ranks)
    for step, whole in enumerate(one["seen"]):
        for rank, found in enumerate(several["case"]):
            own = found["seen"][step]
            assert all(torch.equal(a, b[rank::ranks]) for a, b in zip(own, whole, strict=True))
    first = several["case"][0]
    task, data = evaluated(compose(*case), first["state"])
    alone = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    expected = alone.validate(task, data, verbose=False)[0]
    assert [found["images"] for found in several["case"]] == [101] * ranks
    assert first["classes"] == pytest.approx(task.class_accuracy)
    assert first["measured"].keys() == expected.keys()
    for name, value in expected.items():
        exact = name.endswith(("acc", "top5"))
        assert first["measured"][name] == pytest.approx(value, rel=0 if exact else 1e-5), name


def evaluated(cfg: DictConfig, state: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """The task with what a rank ended with, and its data."""
    data = build_datamodule(cfg)
    task = build_task(cfg, data.evaluates_on)
    task.load_state_dict(dict(state))
    return task, data


def test_accumulated_gradients_are_those_of_more_ranks(tmp_path: Path) -> None:
    """Of a network without batch norms: those normalise what one process sees at once."""
    case = [*SHORT, *PLAIN, "quantizer=abbnn", "loss=bonn", "loss.theta=0.1"]
    one = together(tmp_path, {"whole": [*case, "dataset.batch_size=32"]}, 1)["whole"][0]
    more = ["+trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=4"]
    half = together(tmp_path, {"half": [*case, *more]}, 1)["half"][0]
    two = together(tmp_path, {"ranks": case}, 2)["ranks"][0]
    quarters = [*case, *more, "dataset.batch_size=8"]
    both = together(tmp_path, {"both": quarters}, 2)["both"][0]
    for other in (half, two, both):
        expected, found = (leaves({k: r[k] for k in ("state", "terms")}) for r in (one, other))
        for place, value in expected.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                assert torch.allclose(found[place], value, atol=1e-6, rtol=1e-4), place
