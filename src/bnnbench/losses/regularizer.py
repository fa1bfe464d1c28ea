"""What every loss term with a state or a schedule of its own is: a Lightning callback."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.losses.context import StepContext


class Regularizer(L.Callback):
    """A callback that adds the loss term ``name``; with ``weight`` 0 it does nothing at all.

    It comes with the LightningModule, which attaches it as it is built, or stands in anybody's
    ``Trainer(callbacks=[...])``, which attaches it as the trainer starts: to each module once,
    however many trainers follow. What a term learns (statistics, class centres) it owns itself,
    outside the optimizer, moves after every step and keeps in its ``state_dict``.
    """

    name: str
    weight: float
    task: str | None = None  # the only task it makes sense for
    _stepped = False
    _state_keys: tuple[str, ...] = ()
    _module: Any = None  # the one it is attached to

    def attach(self, pl_module: Any) -> None:
        """Register the term with ``pl_module``, for good.

        Raises:
            ValueError: it makes no sense for this module.
            TypeError: the module takes no loss terms.
        """
        if not hasattr(pl_module, "add_loss_term"):
            raise TypeError(
                f"{type(self).__name__} needs a module with add_loss_term(name, term), such as "
                f"bnnbench.tasks.classification.Classification; got {type(pl_module).__name__}"
            )
        if self.task not in (None, getattr(pl_module, "task", self.task)):
            raise ValueError(
                f"{type(self).__name__} is a loss term of {self.task}, this is {pl_module.task}: "
                "choose another loss, or set its weight to 0"
            )
        pl_module.add_loss_term(self.name, self)
        self._module = pl_module

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.weight and self._module is not pl_module:
            self.attach(pl_module)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self._stepped = True

    def has_stepped(self) -> bool:
        """Once after each step; batches that only accumulate gradients move no statistics."""
        stepped, self._stepped = self._stepped, False
        return stepped

    def __call__(self, context: StepContext) -> Tensor:
        """The weighted term of one step, a scalar."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self._state_keys}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for key, value in state_dict.items():
            setattr(self, key, value)


def binarized_layers(pl_module: Any, loss: str, instead: str) -> list[BinaryLayer]:
    """The layers with quantized weights, whose latent weights ``loss`` reads.

    Raises:
        ValueError: there is none; the message names ``loss``.
    """
    layers = [layer for _, layer in binary_layers(pl_module) if layer.weight_quantizer.bits < 32]
    if not layers:
        raise ValueError(
            f"{loss} needs binarized layers and this network has none: choose another quantizer, "
            f"or {instead}"
        )
    for layer in layers:
        layer.weight_quantizer.has_readers = True
    return layers


def layers_of(pl_module: Any, kind: type, loss: str, quantizer: str) -> list[BinaryLayer]:
    """The layers whose weight side is a ``kind``. Raises ValueError where there is none."""
    layers = [x for _, x in binary_layers(pl_module) if isinstance(x.weight_quantizer, kind)]
    if not layers:
        raise ValueError(
            f"loss={loss} needs what only quantizer={quantizer} learns: choose that quantizer, or "
            "loss=task"
        )
    return layers


def equally_large(layers: list[BinaryLayer]) -> list[list[BinaryLayer]]:
    """Groups of layers that one stacked tensor holds, so that a loss is a few large operations."""
    sizes = dict.fromkeys(layer.weight.numel() for layer in layers)
    return [[layer for layer in layers if layer.weight.numel() == size] for size in sizes]


def stacked_weights(group: list[BinaryLayer]) -> Tensor:
    """The latent weights of equally large layers, one layer a row."""
    return torch.stack([layer.weight.flatten() for layer in group])


def class_sums(trainer: L.Trainer, targets: Tensor, classes: int, *parts: Tensor) -> Tensor:
    """Sums of each of ``parts`` (N, D) by class, over all processes: (len(parts), classes, D)."""
    sums = parts[0].new_zeros(len(parts), classes, parts[0].shape[1])
    for total, part in zip(sums, parts, strict=True):
        total.index_add_(0, targets, part)
    reduced = trainer.strategy.reduce(sums, reduce_op="sum")
    assert isinstance(reduced, torch.Tensor)
    return reduced


def check_choice(key: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise ValueError, naming the option ``key``, for a value that is none of ``valid``."""
    if value not in valid:
        raise ValueError(f"{key}={value!r}: choose one of {valid}")
