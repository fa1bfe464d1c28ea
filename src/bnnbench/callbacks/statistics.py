"""Distributions of latent weights over a run, for Figs. 3 to 5 of BONN (arXiv 1908.06314)."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from bnnbench.layers import BinaryLayer, binary_layers

FRACTIONS = (0.0, 0.01, 0.1, 1.0)  # parts of the run: the paper's epochs 0, 2, 20 and 200 of 200
BINS = 80
ENTRIES = 40  # that a list of values per epoch has in a result
_SERIES = ("binarized", "mean_abs", "kurtosis")


class WeightStatistics(Checkpoint):  # last of all callbacks, so that it sees clipped weights
    """Records latent weights of a few binarized layers of ``pl_module.net``.

    The layers have the indices 0, 1, n//3 and 2n//3 among the n binarized ones: conv2, conv3,
    conv8 and conv14 of WRN-22, as in the paper. Histograms are taken at ``FRACTIONS`` of the run's
    optimiser steps, scalars before the first epoch and after each. It must stand before the
    ``ModelCheckpoint`` whose file a run resumes from.

    Attributes:
        epochs: finished epochs at each entry of the values per epoch, from 0.
        layers: one record a layer; ``as_dict`` says what it holds.
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.layers: list[dict[str, Any]] = []
        self._modules: list[BinaryLayer] = []
        self._targets: dict[float, float] = {}  # step -> fraction, of the snapshots still to take
        self._next: float = math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        chosen = watched_layers(pl_module.net)  # pyright: ignore[reportArgumentType]
        self._modules = [layer for _, _, layer in chosen]
        step = trainer.global_step
        if step == 0 or not self.layers:  # else: a resumed run, whose records were loaded
            self.epochs = []
            self.layers = [_record(name, index) for name, index, _ in chosen]
        taken = {snapshot["step"] for layer in self.layers for snapshot in layer["snapshots"]}
        targets = snapshot_steps(trainer.estimated_stepping_batches) if chosen else {}
        self._targets = {s: f for s, f in targets.items() if s >= step and s not in taken}
        self._next = min(self._targets, default=math.inf)
        if step == 0:
            self._record_epoch(0)
        if step >= self._next:
            self._snapshot(step, float(trainer.current_epoch))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        step = trainer.global_step
        if step >= self._next:
            self._snapshot(step, trainer.current_epoch + (i + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._record_epoch(trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._targets:  # stopped early, or its length was not known
            self._targets = {trainer.global_step: FRACTIONS[-1]}
            self._snapshot(trainer.global_step, float(trainer.current_epoch))

    def _snapshot(self, step: int, epoch: float) -> None:
        passed = [target for target in self._targets if target <= step]
        fraction = max(self._targets.pop(target) for target in passed)
        self._next = min(self._targets, default=math.inf)
        moment = {"fraction": fraction, "step": step, "epoch": round(epoch, 3)}
        for record, layer in zip(self.layers, self._modules, strict=True):
            record["snapshots"].append(moment | distribution(layer.weight))

    def _record_epoch(self, epoch: int) -> None:
        if not self._modules:
            return
        # one transfer for all layers: each waits for the device
        values = torch.stack([_scalars(layer) for layer in self._modules]).tolist()
        self.epochs.append(epoch)
        for record, row in zip(self.layers, values, strict=True):
            for name, value in zip(_SERIES, row, strict=True):
                record[name].append(rounded(value))

    def as_dict(self) -> dict[str, Any]:
        """The records as JSON-ready data; floats have five significant digits.

        ``epochs`` are the finished epochs at the values per epoch, at most ``ENTRIES`` of them, the
        first and the last included. Each of ``layers`` has its ``name`` in the net, its ``index``
        (the number of the convolution, the stem's is 1), ``snapshots`` (``fraction`` of the run,
        ``step``, ``epoch`` and what ``distribution`` returns), and per epoch ``binarized`` (the
        mean magnitude of the quantized weight) and the latent weight's ``mean_abs`` and
        ``kurtosis``. ``{"layers": []}`` if no layer is binarized.
        """
        if not self.layers:
            return {"layers": []}
        kept = _spread(len(self.epochs), ENTRIES)
        thinned = [
            layer | {name: [layer[name][i] for i in kept] for name in _SERIES}
            for layer in self.layers
        ]
        return {"epochs": [self.epochs[i] for i in kept], "layers": thinned}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "layers": self.layers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.layers = state_dict["epochs"], state_dict["layers"]


def watched_layers(net: nn.Module) -> list[tuple[str, int, BinaryLayer]]:
    """Name, number (the stem is 1) and module of the layers to record, without repetitions."""
    layers = [pair for pair in binary_layers(net) if pair[1].weight_quantizer.bits < 32]
    count = len(layers)
    if not count:
        return []
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    number = 1 if first is layers[0][1] else 2  # that of layers[0]: the stem may be binarized too
    indices = sorted({0, min(1, count - 1), count // 3, 2 * count // 3})
    return [(layers[i][0], number + i, layers[i][1]) for i in indices]


def snapshot_steps(total: float) -> dict[float, float]:
    """Optimiser step -> fraction of a run of ``total`` steps; those that coincide are one.

    Of a run limited by neither epochs nor steps (infinite) only both ends are known.
    """
    if math.isinf(total):
        return {0: 0.0, total: 1.0}
    # a fraction above 0 shows at least one step
    return {max(round(f * total), min(1, int(total))) if f else 0: f for f in FRACTIONS}


def distribution(weight: Tensor) -> dict[str, Any]:
    """Histogram and moments of a weight of any shape.

    Returns ``range``, the ``counts`` in ``BINS`` equal bins over [-range, range], which holds every
    weight, ``mean_abs`` and ``std_abs``, mean and spread of ``|x|``, and ``kurtosis``. The first
    two are mu and sigma of BONN's two-mode mixture ``N(mu, sigma)/2 + N(-mu, sigma)/2`` in closed
    form (Eq. 7 has its minimum there).
    """
    x = weight.detach().double().cpu().flatten()  # on CUDA histc is not deterministic
    limit = _rounded_up(float(x.abs().max())) or 1.0
    finite = math.isfinite(limit)  # a diverged run stops with the guard's message, not here
    counts = torch.histc(x, BINS, -limit, limit) if finite else torch.zeros(BINS)
    magnitude = x.abs()
    return {
        "range": limit,
        "counts": [int(count) for count in counts.tolist()],
        "mean_abs": rounded(float(magnitude.mean())),
        "std_abs": rounded(float(magnitude.std(correction=0))),
        "kurtosis": rounded(float(kurtosis(x))),
    }


def kurtosis(x: Tensor) -> Tensor:
    """``E[(x - m)^4] / var^2``, a scalar: 3 for a Gaussian, 1.8 uniform, 1 for two points.

    Finite also where all elements are equal.
    """
    centred = x - x.mean()
    deviation = centred.square().mean().sqrt()
    tiny = torch.finfo(x.dtype).tiny
    return (centred / deviation.clamp_min(tiny)).pow(4).mean()


def rounded(value: float) -> float:
    """``value`` with five significant digits."""
    return float(f"{value:.5g}")


def _rounded_up(value: float) -> float:
    """The next number with five significant digits, so that a range keeps its largest weight."""
    if not math.isfinite(value) or rounded(value) >= value:
        return rounded(value)
    return rounded(rounded(value) + 10.0 ** (math.floor(math.log10(value)) - 4))


@torch.no_grad()
def _scalars(layer: BinaryLayer) -> Tensor:
    """Shape (3,): mean magnitude of the quantized and of the latent weight, and kurtosis."""
    side, weight = layer.weight_quantizer, layer.weight.detach().float()
    training = side.training
    side.eval()
    try:
        binarized = side(layer.weight).float().abs().mean()
    finally:
        side.train(training)
    return torch.stack([binarized, weight.abs().mean(), kurtosis(weight)])


def _record(name: str, index: int) -> dict[str, Any]:
    return {"name": name, "index": index, "snapshots": [], **{key: [] for key in _SERIES}}


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
