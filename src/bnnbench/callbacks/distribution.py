"""RAD's distribution loss (arXiv 1904.02823) on the maps before their signs, for any quantizer."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from bnnbench.layers import binary_layers
from bnnbench.losses.context import StepContext
from bnnbench.losses.distribution import distribution_loss
from bnnbench.losses.regularizer import Regularizer


class Distribution(Regularizer):
    """``weight`` times the mean of ``distribution_loss`` over all maps, in the run's first part.

    The maps are what enters the binarizing activation quantizers; in a network with hardtanh what
    enters these: behind one no value is beyond 1. Each process has its own batch's statistics, as
    batch norm has. Changed: the authors, who have an AlexNet, leave out the stem's map.

    Args:
        weight: lambda.
        until: fraction of the run, in (0, 1], behind which the term is 0.
    """

    name = "distribution"

    def __init__(self, weight: float, until: float) -> None:
        if weight < 0 or not 0 < until <= 1:
            raise ValueError(
                "loss: lambda must not be negative and until in (0, 1], a fraction of the run; got "
                f"{weight}, {until}"
            )
        self.weight, self.until, self.on = weight, until, False
        self.maps: list[Tensor] = []  # of the forward under way
        self._hooks: list[Any] = []
        self._steps = 0.0

    def attach(self, pl_module: Any) -> None:
        modules = _before_signs(pl_module)
        super().attach(pl_module)
        for hook in self._hooks:  # every trainer attaches once more
            hook.remove()
        self._hooks = [module.register_forward_pre_hook(self._keep) for module in modules]

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.on and module.training:
            self.maps.append(args[0])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps = self.until * float(trainer.estimated_stepping_batches)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, i: int
    ) -> None:
        self.on = trainer.global_step < self._steps
        self.maps.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on = False

    def __call__(self, context: StepContext) -> Tensor:
        if not self.on:
            return context.layers[0][1].weight.new_zeros(())
        losses = torch.stack([distribution_loss(x) for x in self.maps])
        self.maps.clear()
        return self.weight * losses.mean()


def _before_signs(pl_module: nn.Module) -> list[nn.Module]:
    """The modules whose inputs are the maps. Raises ValueError without binarized activations."""
    sides = [layer.activation_quantizer for _, layer in binary_layers(pl_module)]
    signs = [side for side in sides if side.bits == 1]
    if not signs:
        raise ValueError(
            "loss=rad needs binarized activations and this network has none: choose a quantizer "
            "that binarizes them, or loss=task"
        )
    clips = [m for m in pl_module.modules() if type(m) is nn.Hardtanh]  # a ReLU6 is one as well
    for clip in clips:
        clip.inplace = False  # or it would write over its map
    return [*clips] or [*signs]
