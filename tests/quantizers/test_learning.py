"""Every method fits a small real set far above chance, each with what it is trained by."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.config import options
from bnnbench.losses import task_loss
from bnnbench.losses.bayesian_feature import BayesianFeature
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.losses.kurtosis import Kurtosis
from bnnbench.losses.mcn import FilterLoss
from bnnbench.losses.projection import Projection
from bnnbench.losses.variational import KLDivergence
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

ADAM = Recipe("adam", 1e-2, schedule="onecycle")
# 40 steps: a data weight a hundred times the authors' moves lam off its start in time.
BAYES = Recipe("bayesbinn", 1e-2, schedule="cosine", groups={"latent": {"effective_size": 5e5}})
PRIOR = {"prior": "scale_mixture", "pi": 0.5, "sigma1": 1.0, "sigma2": 2.5e-3, "mu": 0.05}
Case = tuple[str, dict[str, Any], Recipe]
OWN = ("admm", "wage")  # trained in rounds, and without norms: in their own files
METHODS = [name for name in options("quantizer") if name not in OWN]
CASES: dict[str, Case] = {name: (name, {}, ADAM) for name in METHODS} | {
    "bonn": ("bonn", {"kernel": BayesianKernel(1e-6, 1.0), "feature": BayesianFeature()}, ADAM),
    "pcnn": ("pcnn", {"projection": Projection(1e-6, eta=0.0)}, ADAM),
    "mcn": ("mcn", {"filter": FilterLoss(1e-6)}, ADAM),
    "kurtosis": ("xnor", {"kurtosis": Kurtosis(0.01, target=1.4)}, ADAM),
    "bayesbinn": ("bayesbinn", {}, BAYES),
    "bbb": ("bbb", {"kl": KLDivergence(0.01, **PRIOR)}, ADAM),
}
RESNETS = ("abbnn", "rbnn")  # no norms, or norms that start at 0: not for pre-activation networks


def digits() -> tuple[Tensor, Tensor]:
    pixels, target = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)
    return images[:512], torch.tensor(target)[:512]


@pytest.mark.parametrize("case", CASES)
def test_fits_digits(case: str) -> None:
    quantizer, terms, recipe = CASES[case]
    torch.manual_seed(0)
    widths = {"in_channels": 1, "image_size": 8, "widths": [8, 8, 16, 32]}
    if quantizer in RESNETS:
        net = bnnbench.build_backbone("resnet20", quantizer, in_channels=1, image_size=8)
    else:
        net = bnnbench.build_backbone("wrn22", quantizer, **widths)
    task = Classification(net, task_loss("classification"), recipe, 10, terms=terms)
    images, labels = digits()
    batches = DataLoader(
        list(zip(images.split(64), labels.split(64), strict=True)), batch_size=None
    )
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, batches)
    accuracy = (net.eval()(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.5, float(accuracy)
