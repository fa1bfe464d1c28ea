"""Optimiser and learning-rate schedule of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn, optim

from bnnbench.optim.bayesbinn import BayesBiNN
from bnnbench.optim.extragradient import Extragradient
from bnnbench.optim.latent import LatentAdam
from bnnbench.optim.roles import ROLES
from bnnbench.optim.wage import WAGE

LATENT: dict[str, type[LatentAdam]] = {"bayesbinn": BayesBiNN, "wage": WAGE}
OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "extragradient": Extragradient,
    **LATENT,
}
SCHEDULES = ("cosine", "linear", "step", "onecycle", "constant")
CYCLE = {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1.0e4}  # torch's
GROUP_KEYS = ("lr", "weight_decay", *(kind.setting for kind in LATENT.values()))


@dataclass(frozen=True)
class Recipe:
    """One optimiser over all parameters and one schedule over all steps.

    Attributes:
        optimizer: ``sgd``, ``adam``, ``adamw``, ``extragradient`` (sgd without momentum, two
            gradients a step), or ``bayesbinn`` or ``wage`` (that one for latent weights, adam for
            all others).
        lr: peak learning rate.
        weight_decay: L2 term of sgd and adam, decoupled for adamw.
        momentum: sgd's.
        nesterov: whether sgd's momentum is Nesterov's.
        schedule: ``cosine`` or ``linear`` to 0, ``step`` (times ``gamma`` at each of the
            ``milestones``), ``onecycle`` (cosine up over the first ``pct_start``, then down, with
            cycled momentum; arXiv 1708.07120), or ``constant``.
        warmup: linear warm-up (not for onecycle, which has its own): a fraction of all steps, or
            from 1 on a number of steps.
        milestones: for ``step``, rising: fractions of the run, or whole numbers of steps.
        gamma: factor at each milestone.
        pct_start: fraction of the run in which onecycle's rate rises.
        div_factor: peak rate over onecycle's first one.
        final_div_factor: onecycle's first rate over its last one.
        estimator_reach: fraction of their schedules that quantizers go through in the run.
        reference_batch: images a step that ``lr`` is stated for; of another number it is scaled,
            see ``scaled``. None: it is taken as it stands.
        groups: per role of ``roles.ROLES``, ``lr`` (a factor of the recipe's) and ``weight_decay``
            (in place of the recipe's); a role that is not named has the recipe's own. The latent
            role of ``bayesbinn`` also states ``effective_size``, the number of training images
            times the weight of the likelihood, and that of ``wage`` ``gradient_bits``.
    """

    optimizer: str
    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "onecycle"
    warmup: float = 0.0
    nesterov: bool = False
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1.0e4
    estimator_reach: float = 1.0
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reference_batch: int | None = None

    def __post_init__(self) -> None:
        for key, valid in (("optimizer", tuple(OPTIMIZERS)), ("schedule", SCHEDULES)):
            if getattr(self, key) not in valid:
                raise ValueError(f"recipe.{key}={getattr(self, key)!r}: choose one of {valid}")
        warmup_fits = 0 <= self.warmup < 1 or (isinstance(self.warmup, int) and self.warmup >= 1)
        if self.lr <= 0 or self.weight_decay < 0 or not warmup_fits:
            raise ValueError(
                "recipe: lr must be above 0, weight_decay at least 0 and warmup a fraction of the "
                "run or a whole number of steps; got "
                f"lr={self.lr}, weight_decay={self.weight_decay}, warmup={self.warmup}"
            )
        if not 0 < self.estimator_reach <= 1:
            raise ValueError(
                f"recipe.estimator_reach={self.estimator_reach} must be above 0 and at most 1"
            )
        if self.reference_batch is not None and self.optimizer in LATENT:
            raise ValueError(
                f"recipe.reference_batch={self.reference_batch}: no rule is known for "
                f"recipe.optimizer={self.optimizer}; set recipe.lr, and reference_batch=null"
            )
        self._check_cycle()
        self._check_milestones()
        self._check_groups()

    def _check_cycle(self) -> None:
        shape = {key: getattr(self, key) for key in CYCLE}
        if not 0 < self.pct_start < 1 or min(self.div_factor, self.final_div_factor) < 1:
            raise ValueError(
                "recipe: pct_start must be between 0 and 1, div_factor and final_div_factor at "
                f"least 1; got {shape}"
            )
        changed = [key for key, value in shape.items() if value != CYCLE[key]]
        if changed and self.schedule != "onecycle":
            raise ValueError(
                f"recipe.{changed[0]}={shape[changed[0]]} is for recipe.schedule=onecycle, this is "
                f"{self.schedule}: leave it at {CYCLE[changed[0]]}"
            )

    def _check_milestones(self) -> None:
        marks = list(self.milestones)
        fractions = all(0 < mark < 1 for mark in marks)
        steps = all(isinstance(mark, int) and mark >= 1 for mark in marks)
        if marks != sorted(marks) or not (fractions or steps):
            raise ValueError(
                f"recipe.milestones={marks} must rise, and be either fractions of the run between "
                "0 and 1 or whole numbers of steps"
            )
        if (self.schedule == "step") != bool(marks):
            raise ValueError(
                f"recipe.schedule={self.schedule} with recipe.milestones={marks}: step needs "
                "milestones, and only step has any"
            )

    def _check_groups(self) -> None:
        for role, values in self.groups.items():
            if role not in ROLES:
                raise ValueError(f"recipe.groups.{role}: choose one of {ROLES}")
            wrong = [key for key in values if key not in GROUP_KEYS or values[key] < 0]
            if wrong:
                raise ValueError(
                    f"recipe.groups.{role}: {wrong} must be among {GROUP_KEYS} and not negative"
                )
        for optimizer, key in ((name, kind.setting) for name, kind in LATENT.items()):
            stated = [role for role, values in self.groups.items() if key in values]
            if stated != (["latent"] if self.optimizer == optimizer else []):
                raise ValueError(
                    f"recipe.optimizer={self.optimizer} with {key} in recipe.groups of {stated}: "
                    f"{optimizer} needs it for latent, and nothing else has any; see "
                    "recipe=bayesbinn and conf/recipe/native/method/wage.yaml"
                )

    @property
    def evaluates_twice(self) -> bool:
        """Whether an optimiser step evaluates the loss of its batch twice."""
        return OPTIMIZERS[self.optimizer] is Extragradient

    def scaled(self, images: int) -> Recipe:
        """The recipe for steps of ``images`` images, over all processes and accumulated batches.

        The rate of sgd is proportional to them (arXiv 1706.02677), that of adam and adamw to their
        square root (arXiv 2205.10287); groups have factors of it.
        """
        if self.reference_batch is None:
            return self
        factor = images / self.reference_batch
        if self.optimizer in ("adam", "adamw"):
            factor = math.sqrt(factor)
        return replace(self, lr=self.lr * factor, reference_batch=None)

    def build(
        self, parameters: Mapping[str, list[nn.Parameter]], total_steps: int
    ) -> dict[str, Any]:
        """What ``configure_optimizers`` returns.

        Args:
            parameters: by role, as ``parameters_by_role`` gives them.
            total_steps: optimiser steps of the run.
        """
        late = [mark for mark in (self.warmup, *self.milestones) if mark >= total_steps]
        if late:
            rank_zero_warn(
                f"the run has {total_steps} steps and never reaches {late} of recipe.warmup and "
                "recipe.milestones: set these to steps, or fractions, of this run"
            )
        optimizer = self._optimizer(self.parameter_groups(parameters))
        if self.schedule == "onecycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            cycle = {key: getattr(self, key) for key in CYCLE}
            if self.pct_start * total_steps == 1:  # torch would divide by a rise of no steps
                cycle["pct_start"] *= 1 - 1e-9
            scheduler = optim.lr_scheduler.OneCycleLR(
                optimizer,
                peaks,
                total_steps=total_steps,
                **cycle,
                cycle_momentum=not self.evaluates_twice,  # extragradient has none
            )
        else:
            scheduler = optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: self.factor(step, total_steps)
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def parameter_groups(
        self, parameters: Mapping[str, list[nn.Parameter]]
    ) -> list[dict[str, Any]]:
        """The optimiser's groups: the roles without settings of their own first, as one."""
        plain = [p for role, own in parameters.items() if role not in self.groups for p in own]
        found: list[dict[str, Any]] = [{"params": plain}] if plain else []
        for role, values in self.groups.items():
            if role in parameters:
                decay = values.get("weight_decay", self.weight_decay)
                group = {"lr": self.lr * values.get("lr", 1.0), "weight_decay": decay}
                if self.optimizer in LATENT:
                    own = LATENT[self.optimizer].setting
                    group["latent"] = role == "latent"
                    group |= {own: values[own]} if own in values else {}
                found.append({"params": parameters[role], **group})
        return found

    def _optimizer(self, parameters: list[dict]) -> optim.Optimizer:
        shared: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            shared |= {"momentum": self.momentum, "nesterov": self.nesterov}
        kind: Any = OPTIMIZERS[self.optimizer]
        return kind(parameters, **shared)

    def factor(self, step: int, total_steps: int) -> float:
        """Learning rate over ``lr`` at ``step`` of a run of ``total_steps``."""
        warmup = _in_steps(self.warmup, total_steps)
        if step < warmup:
            return step / warmup
        if self.schedule == "step":
            return self.gamma ** sum(step >= _in_steps(m, total_steps) for m in self.milestones)
        left = 1 - (step - warmup) / max(total_steps - warmup, 1)
        if self.schedule == "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        return left if self.schedule == "linear" else 1.0


def _in_steps(mark: float, total_steps: int) -> float:
    return mark if isinstance(mark, int) and mark > 0 else mark * total_steps
