"""Compiles the network of a run where that pays."""

from __future__ import annotations

import shutil

import lightning as L
import torch
from torch._functorch import config as functorch

CHOICES = ("auto", True, False)
SHARED = "autograd_cache_allow_custom_autograd_functions"  # not in every torch
CPU_STEPS = 2000  # on CPU a compilation costs about a minute: shorter runs do not earn it back


class Compilation(L.Callback):
    """Compiles ``pl_module.net`` and its teacher in place, so that no name in a checkpoint changes.

    Args:
        when: True, False, or ``auto``: on a GPU, and on CPU for long runs where g++ is installed.
        static: compile for each size of images anew, where a run has several: code for any size is
            slower.
    """

    def __init__(self, when: str | bool = "auto", static: bool = False) -> None:
        if when not in CHOICES:
            raise ValueError(f"compile={when!r}: choose auto, true or false")
        self.when = when
        self.options = {"dynamic": False} if static else {}

    def pays(self, device: torch.device, steps: float) -> bool:
        """Whether a run of ``steps`` optimiser steps on ``device`` is compiled."""
        if isinstance(self.when, bool):
            return self.when
        if device.type == "cuda":
            return True
        return steps >= CPU_STEPS and shutil.which("g++") is not None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.pays(pl_module.device, trainer.estimated_stepping_batches):
            share_compiled()
            teacher = getattr(pl_module, "teacher", None)
            for module in (pl_module, *([teacher] if teacher else [])):
                module.net.compile(**self.options)  # pyright: ignore


def share_compiled() -> None:
    """Let later processes have networks with surrogates from torch's cache on disk as a whole.

    By itself torch keeps only the kernels of such networks, and traces their backward again. Its
    key holds the traced forward and backward of every function.
    """
    if hasattr(functorch, SHARED):
        setattr(functorch, SHARED, True)
