"""Statistics of latent weights: against numpy, at the right steps, and through a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.callbacks.statistics import (
    ENTRIES,
    WeightStatistics,
    distribution,
    kurtosis,
    rounded,
    snapshot_steps,
    watched_layers,
)
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

BATCHES = 10


class Tiny(torch.nn.Module):
    """A stem, four binary convolutions, a head."""

    def __init__(self, quantizer: str) -> None:
        super().__init__()
        spec = bnnbench.load_quantizer(quantizer)
        self.stem = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.body = torch.nn.Sequential(
            *(spec.conv2d(4, 4, 3, padding=1, bias=False) for _ in range(4))
        )
        self.head = torch.nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Latent(L.Callback):
    """Keeps the first binary weight before training and after each optimiser step."""

    def __init__(self) -> None:
        self.weights: dict[int, torch.Tensor] = {}

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        _, layer = next(binary_layers(module))
        self.weights[trainer.global_step] = layer.weight.detach().clone()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, i: int) -> None:
        self._keep(trainer, pl_module)  # what the step before left

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(trainer, pl_module)


def fit(
    *callbacks: L.Callback,
    quantizer: str = "xnor",
    lr: float = 0.5,
    resume: Path | None = None,
    **limits: Any,
) -> WeightStatistics:
    torch.manual_seed(0)
    statistics = WeightStatistics()
    task = Classification(
        Tiny(quantizer), task_loss("classification"), Recipe("sgd", lr, schedule="cosine"), 10
    )
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(4, 3, 6, 6, generator=generator), torch.arange(4)) for _ in range(BATCHES)]
    trainer = L.Trainer(
        callbacks=[statistics, *callbacks],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **limits,
    )
    trainer.fit(task, DataLoader(data, batch_size=None), ckpt_path=resume)  # pyright: ignore
    return statistics


def first_layer(statistics: WeightStatistics) -> dict[str, Any]:
    return statistics.as_dict()["layers"][0]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (np.random.default_rng(0).normal(3, 2, 400_000), 3.0),
        (np.random.default_rng(1).uniform(-5, 1, 400_000), 1.8),
        (np.repeat([-0.2, 0.2], 500), 1.0),
    ],
    ids=["normal", "uniform", "two points"],
)
def test_kurtosis_of_known_distributions(sample: np.ndarray, expected: float) -> None:
    assert float(kurtosis(torch.tensor(sample))) == pytest.approx(expected, abs=0.03)


def test_equal_weights_have_a_finite_kurtosis() -> None:
    assert math.isfinite(float(kurtosis(torch.zeros(5))))
    assert sum(distribution(torch.zeros(5, 2))["counts"]) == 10


@pytest.mark.parametrize("scale", [1e-3, 0.0123456789, 7.0])
def test_histogram_is_numpys_and_loses_no_weight(scale: float) -> None:
    weight = scale * torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(2))
    found = distribution(weight)
    x, limit = weight.double().numpy().ravel(), found["range"]
    assert abs(x).max() <= limit <= 1.001 * abs(x).max()
    assert found["counts"] == np.histogram(x, 80, (-limit, limit))[0].tolist()
    assert sum(found["counts"]) == x.size
    assert found["mean_abs"] == pytest.approx(abs(x).mean(), rel=1e-4)
    assert found["std_abs"] == pytest.approx(abs(x).std(), rel=1e-4)


def test_layers_are_those_of_the_paper() -> None:
    net = bnnbench.build_backbone("resnet20", quantizer="xnor", shortcut="block")
    names = [name for name, _ in binary_layers(net)]
    assert len(names) == 18  # as in WRN-22: 3 stages of 3 blocks
    found = [(name, number) for name, number, _ in watched_layers(net)]
    assert found == [(names[i], i + 2) for i in (0, 1, 6, 12)]
    assert [number for _, number, _ in watched_layers(Tiny("xnor"))] == [2, 3, 4]
    spec = bnnbench.load_quantizer("xnor")
    assert [n for _, n, _ in watched_layers(torch.nn.Sequential(spec.conv2d(3, 4, 3)))] == [1]


def test_steps_of_long_short_and_endless_runs() -> None:
    assert snapshot_steps(78_200) == {0: 0.0, 782: 0.01, 7820: 0.1, 78_200: 1.0}
    assert snapshot_steps(30) == {0: 0.0, 1: 0.01, 3: 0.1, 30: 1.0}
    assert snapshot_steps(1) == {0: 0.0, 1: 1.0}
    assert snapshot_steps(math.inf) == {0: 0.0, math.inf: 1.0}


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        ({"max_epochs": 3}, [0, 1, 3, 30], [0, 0.1, 0.3, 3]),
        ({"max_epochs": 5, "limit_train_batches": 4}, [0, 1, 2, 20], [0, 0.25, 0.5, 5]),
        ({"max_epochs": -1, "max_steps": 25}, [0, 1, 2, 25], [0, 0.1, 0.2, 2.5]),
        ({"max_epochs": 2, "accumulate_grad_batches": 5}, [0, 1, 4], [0, 0.5, 2]),
    ],
)
def test_snapshots_show_the_weights_of_their_steps(
    tmp_path: Path, limits: dict[str, Any], steps: list[int], epochs: list[float]
) -> None:
    latent = Latent()
    found = first_layer(fit(latent, default_root_dir=tmp_path, enable_checkpointing=True, **limits))
    snapshots = found["snapshots"]
    assert [snapshot["step"] for snapshot in snapshots] == steps
    assert [snapshot["epoch"] for snapshot in snapshots] == epochs
    assert (snapshots[0]["fraction"], snapshots[-1]["fraction"]) == (0.0, 1.0)
    for snapshot in snapshots:
        assert snapshot["mean_abs"] == rounded(
            float(latent.weights[snapshot["step"]].double().abs().mean())
        )
    assert len({snapshot["mean_abs"] for snapshot in snapshots}) == len(steps)


def test_values_per_epoch_are_those_of_the_quantized_and_the_latent_weight(tmp_path: Path) -> None:
    latent = Latent()
    statistics = fit(latent, max_epochs=3, default_root_dir=tmp_path)
    assert statistics.as_dict()["epochs"] == [0, 1, 2, 3]
    found, weights = first_layer(statistics), [latent.weights[step] for step in (0, 10, 20, 30)]
    centred = [w - w.mean(1, keepdim=True) for w in weights]  # XNOR-Net: alpha is its mean |w|
    expected = [float(c.clamp(-1, 1).abs().mean()) for c in centred]
    assert found["binarized"] == pytest.approx(expected, rel=1e-4)
    assert found["mean_abs"] == pytest.approx([float(w.abs().mean()) for w in weights], rel=1e-4)
    numpys = [w.double().numpy() for w in weights]
    fourth = [((x - x.mean()) ** 4).mean() / x.var() ** 2 for x in numpys]
    assert found["kurtosis"] == pytest.approx(fourth, rel=1e-4)


def test_weights_are_seen_after_they_were_clipped(tmp_path: Path) -> None:
    statistics = fit(quantizer="bnn", lr=50.0, max_epochs=1, default_root_dir=tmp_path)
    ranges = [snapshot["range"] for snapshot in first_layer(statistics)["snapshots"]]
    assert ranges[-1] == 1.0


def test_the_mode_of_a_quantizer_is_restored(tmp_path: Path) -> None:
    modes: list[tuple[bool, ...]] = []

    class Modes(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            sides = (layer.weight_quantizer for _, layer in binary_layers(pl_module))
            modes.append(tuple(side.training for side in sides))

    fit(Modes(), max_epochs=2, default_root_dir=tmp_path)
    assert set(modes) == {(True,) * 4}


@pytest.mark.parametrize(
    ("epochs", "cut"), [(3, 1), (3, 2), (10, 1)], ids=["early", "late", "right at a snapshot"]
)
def test_a_resumed_run_records_the_same(tmp_path: Path, epochs: int, cut: int) -> None:
    class Cut(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == cut:
                raise InterruptedError

    def last(name: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / name, filename="last", enable_version_counter=False)

    whole = fit(last("whole"), max_epochs=epochs).as_dict()
    with pytest.raises(InterruptedError):
        fit(last("cut"), Cut(), max_epochs=epochs)
    file = tmp_path / "cut" / "last.ckpt"
    torch.load(file, weights_only=True)
    assert fit(last("cut"), max_epochs=epochs, resume=file).as_dict() == whole
    finished = tmp_path / "whole" / "last.ckpt"  # its state is complete, and nothing is left to do
    assert fit(max_epochs=epochs, resume=finished, enable_checkpointing=True).as_dict() == whole


def test_passed_moments_of_an_older_checkpoint_stay_empty(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    fit(checkpoint, max_epochs=1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["callbacks"] = {k: v for k, v in content["callbacks"].items() if "Weight" not in k}
    torch.save(content, tmp_path / "older.ckpt")
    resumed = fit(max_epochs=2, resume=tmp_path / "older.ckpt", default_root_dir=tmp_path)
    assert [snapshot["fraction"] for snapshot in first_layer(resumed)["snapshots"]] == [1.0]
    assert resumed.as_dict()["epochs"] == [2]


def test_full_precision_has_no_layers(tmp_path: Path) -> None:
    statistics = fit(quantizer="fp32", max_epochs=1, default_root_dir=tmp_path)
    assert statistics.as_dict() == {"layers": []}


def test_a_long_run_stays_small() -> None:
    """200 epochs of four layers of WRN-22 16-16-32-64: about 12 kB on one line."""
    generator = torch.Generator().manual_seed(3)
    statistics = WeightStatistics()
    statistics.epochs = list(range(201))
    shapes = ((16, 16, 3, 3), (16, 16, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3))
    for shape in shapes:
        weight = 0.03 * torch.randn(shape, generator=generator)
        moment = {"fraction": 0.01, "step": 782, "epoch": 2.0} | distribution(weight)
        values = [rounded(x) for x in torch.rand(201, generator=generator).tolist()]
        series = dict.fromkeys(("binarized", "mean_abs", "kurtosis"), values)
        record = {"name": "stages.0.0.conv1", "index": 14, "snapshots": [moment] * 4}
        statistics.layers.append(record | series)
    found = statistics.as_dict()
    assert len(json.dumps(found)) < 12_500
    assert len(found["epochs"]) == ENTRIES == len(found["layers"][0]["kurtosis"])
    assert (found["epochs"][0], found["epochs"][-1]) == (0, 200)
    assert len(statistics.epochs) == 201  # the state keeps all
