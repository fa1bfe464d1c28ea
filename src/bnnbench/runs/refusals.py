"""Parts of a run that make no sense together, refused as its objects are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from bnnbench.layers import binary_layers
from bnnbench.losses.bayesian_feature import BayesianFeature
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.losses.kurtosis import Kurtosis
from bnnbench.losses.mcn import Compactness
from bnnbench.losses.periodic import Periodic
from bnnbench.optim.recipe import LATENT, Recipe

OVER_WEIGHTS = (BayesianKernel, Kurtosis, Periodic)  # terms of latent weights as real numbers
OVER_CLASSES = (BayesianFeature, Compactness)  # terms of the one class that an image has


def check_optimizer(net: nn.Module, recipe: Recipe) -> None:
    """Refuse methods that are an optimizer together with another one, and the reverse.

    Raises:
        ValueError: the message says which recipe and quantizer belong together.
    """
    sides = [layer.weight_quantizer for _, layer in binary_layers(net)]
    needed = {side.optimizer for side in sides if side.optimizer is not None}
    own = {recipe.optimizer} & set(LATENT)
    if needed != own:
        method = next(iter(needed or own))
        raise ValueError(
            f"recipe.optimizer={recipe.optimizer} does not train this quantizer: "
            f"quantizer={method} and recipe={LATENT[method].recipe} need each other"
        )


def check_terms(terms: Mapping[str, Any], recipe: Recipe, loss: str) -> None:
    """Refuse losses over latent weights that are natural parameters.

    Raises:
        ValueError: the message names the term.
    """
    if "effective_size" not in recipe.groups.get("latent", {}):
        return  # no optimizer of a posterior over them
    for name, term in terms.items():
        if isinstance(term, OVER_WEIGHTS) and term.weight:
            raise ValueError(
                f"loss.terms.{name} of loss={loss} takes latent weights for values, and those of "
                f"recipe={LATENT[recipe.optimizer].recipe} are natural parameters of a "
                "distribution over -1 and +1: choose loss=task, or another quantizer and recipe"
            )


def check_mixing(cfg: DictConfig, terms: Mapping[str, Any]) -> None:
    """Refuse mixed images with a loss that wants one class an image.

    Raises:
        ValueError: the message names the loss, or its term.
    """
    keys = [key for key in ("mixup", "cutmix") if cfg.dataset.get(key)]
    if not keys:
        return
    of_one = [f".terms.{n}" for n, t in terms.items() if isinstance(t, OVER_CLASSES) and t.weight]
    if cfg.loss.get("kind") == "sse":
        of_one.insert(0, ".kind=sse")
    if of_one:
        raise ValueError(
            f"dataset.{keys[0]}={cfg.dataset[keys[0]]} gives images shares in two classes, and "
            f"loss{of_one[0]} of loss={cfg.loss.name} wants one class an image: set dataset."
            f"{'=0 dataset.'.join(keys)}=0, or choose loss=task"
        )
