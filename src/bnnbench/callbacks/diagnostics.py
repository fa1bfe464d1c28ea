"""What to look at when a binary network does not learn, once an epoch: docs/diagnostics.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.callbacks.probe import VALUES, Codes, probe, watched_layers, weight_codes
from bnnbench.callbacks.statistics import rounded
from bnnbench.records.schema import finite


class BinaryDiagnostics(L.Callback):
    """Probes ``pl_module.net`` after every epoch, on images of its last training batch.

    It logs ``diagnostics/<value>`` over all binarized layers, keeps the values of each, and draws
    ``diagnostics.png`` after the training. The loss is the task's own, without terms. A training
    with it is bit for bit the training without it.

    Args:
        folder: where the figure goes.
        images: of the batch, at most.

    Attributes:
        epochs: by epoch, its number and by value a list of one a layer, None where it has none.
        layers: names of the layers.
    """

    def __init__(self, folder: str | Path, images: int) -> None:
        if images < 2:
            raise ValueError(
                f"callbacks.diagnostics.images={images}: at least 2, or callbacks=default"
            )
        self.folder, self.images = Path(folder), images
        self.epochs: list[dict[str, Any]] = []
        self.layers: list[str] = []
        self._codes: Codes = {}
        self._batch: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.layers = list(watched_layers(pl_module.net))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._batch = None
        self._codes = weight_codes(watched_layers(pl_module.net))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._batch = batch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        batch, self._batch = self._batch, None
        if batch is None or not self.layers:
            return
        images, targets = (part[: self.images] for part in batch)

        def loss() -> Tensor:
            with trainer.precision_plugin.train_step_context():
                return _task_loss(pl_module, images, targets)

        probed = probe(pl_module.net, loss, self._codes, pl_module.regularizers)
        if trainer.world_size > 1:
            values = probed.values.to(pl_module.device)
            probed.values = _mean(trainer, values).cpu()
        together = probed.together()
        pl_module.log_dict({f"diagnostics/{name}": value for name, value in together.items()})
        columns = [[rounded(v) for v in column] for column in probed.values.T.tolist()]
        row = finite(dict(zip(VALUES, columns, strict=True)))
        self.epochs.append({"epoch": trainer.current_epoch, **row})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.epochs:
            from bnnbench.callbacks.diagnostics_figure import draw

            draw(self.layers, self.epochs, self.folder / "diagnostics")

    def as_dict(self) -> dict[str, Any]:
        """The last epoch as JSON-ready data: its number, ``layers`` and a list a value."""
        return {"layers": self.layers, **(self.epochs[-1] if self.epochs else {})}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


def _task_loss(pl_module: Any, images: Tensor, targets: Any) -> Tensor:
    """The loss without terms, of the network as it is trained but never compiled."""
    outputs = pl_module.net.forward(images)
    if pl_module.task == "detection":
        return sum(pl_module.loss(pl_module.net, outputs, targets))  # pyright: ignore
    return pl_module.loss(outputs, targets)


def _mean(trainer: L.Trainer, values: Tensor) -> Tensor:
    mean = trainer.strategy.reduce(values, reduce_op="mean")
    assert isinstance(mean, torch.Tensor)
    return mean
