"""Overall scores of a binarization method in six tracks, in the manner of BiBench.

BiBench, arXiv 2301.11233 (ICML 2023), scores a method by the quadratic mean of relative values, so
that one bad part weighs little. With E the mean, `b` the binarized network and nothing the one in
full precision:

    task          sqrt( mean over tasks of E(A^b / A)^2 )
    architecture  sqrt( mean over CNN, Transformer, MLP of E(A^b / A)^2 )
    robustness    sqrt( mean over corruptions of (G / G^b)^2 ),  G = A_clean - A_corrupted
    training      sqrt( 1/2 [ E(T / T^b)^2 + (std A / std A^b)^2 ] ),  std over hyperparameters
    complexity    sqrt( 1/2 [ E(bytes / bytes^b)^2 + E(OPs / OPs^b)^2 ] )
    inference     sqrt( 1/2 [ E(ms / ms^b)^2 + E(bytes / bytes^b)^2 ] ), of deployed networks

1 is as good as full precision, in every track more is better. The names of the tracks were read in
the paper's first figure, the grid of hyperparameters in its configs; the formulas are recalled:
``FORMULAS`` says of each whether somebody has read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

SOURCE = "arXiv 2301.11233"


class Formula(NamedTuple):
    """A track's formula in one line, and whether it was read in its source."""

    text: str
    verified: bool


FORMULAS = {
    "task": Formula("quadratic mean over tasks of E(accuracy / twin's)", False),
    "architecture": Formula("quadratic mean over kinds of networks of E(accuracy / twin's)", False),
    "robustness": Formula("quadratic mean over corruptions of the twin's loss / own loss", False),
    "training": Formula("quadratic mean of twin's time / time and twin's std / std", False),
    "complexity": Formula("quadratic mean of E(twin's bytes / bytes), E(twin's OPs / OPs)", False),
    "inference": Formula("quadratic mean of E(float ms / ms), E(float bytes / bytes)", False),
}
TRACKS = tuple(FORMULAS)


def quadratic_mean(values: Sequence[float]) -> float:
    """The root of the mean of squares. Raises ValueError for no values: nothing has no score."""
    if not values:
        raise ValueError("a quadratic mean of nothing")
    return math.sqrt(mean(value * value for value in values))


def relative(parts: Mapping[str, Sequence[tuple[float, float]]]) -> float:
    """The score of tasks or of kinds of networks.

    Args:
        parts: by task or kind, pairs (binarized, full precision) of accuracy or mAP.
    """
    return quadratic_mean([mean(ours / full for ours, full in pairs) for pairs in parts.values()])


def robustness(losses: Mapping[str, tuple[float, float]]) -> float:
    """The score over corruptions.

    Args:
        losses: by corruption, the accuracy that it costs (binarized, full precision), both above 0.
    """
    return quadratic_mean([full / ours for ours, full in losses.values()])


def training(
    times: Sequence[tuple[float, float]], accuracies: Sequence[float], twins: Sequence[float]
) -> float | None:
    """The score of time and of sensitivity to hyperparameters.

    Args:
        times: pairs (binarized, full precision) of seconds of training.
        accuracies: of the binarized network, one a setting, and those of the twins; None is
            returned where there are fewer than two, or where they are all equal.
    """
    if min(len(accuracies), len(twins)) < 2 or not stdev(accuracies):
        return None
    return quadratic_mean(
        [mean(full / ours for ours, full in times), stdev(twins) / stdev(accuracies)]
    )


def two_ratios(first: Sequence[float], second: Sequence[float]) -> float:
    """The score of complexity (bytes, OPs) and inference (ms, bytes), from full over binarized."""
    return quadratic_mean([mean(first), mean(second)])
