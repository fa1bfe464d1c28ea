"""RAD: regularizing activation distribution (Ding et al., CVPR 2019, arXiv 1904.02823).

Code: ruizhoud/DistributionLoss. A map before its sign, with the clipped straight-through gradient
behind it, is kept from three shapes, channel by channel. For any quantizer.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from bnnbench.layers import binary_layers
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer

EPS = 1e-10  # of the variance: the root of 0 has no gradient


def distribution_loss(x: Tensor) -> Tensor:
    """The loss of one map (N, C, ...), a scalar: the mean over its channels.

    With ``m`` and ``s`` the mean and the population's standard deviation over all other axes:
    ``relu(2 - |m| - s)^2`` (too narrow: hardly a value beyond 1), ``relu(s - 4)^2`` (too wide: no
    gradient) and ``relu(m^2 - s^2)`` (on one side of 0: constant signs).
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(x, dim=axes, correction=0)
    std = (variance + EPS).sqrt()
    narrow = (2 - mean.abs() - std).relu().square()
    wide = (std - 4).relu().square()
    one_sided = (mean.square() - std.square()).relu()
    return (narrow + wide + one_sided).mean()


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
        self._steps = 0.0

    def attach(self, pl_module: Any) -> None:
        modules = _before_signs(pl_module)
        super().attach(pl_module)
        for module in modules:
            module.register_forward_pre_hook(self._keep)

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
    clips = [
        m for m in pl_module.modules() if isinstance(m, nn.Hardtanh) and not isinstance(m, nn.ReLU6)
    ]
    for clip in clips:
        clip.inplace = False  # or it would write over its map
    return [*clips] or [*signs]
