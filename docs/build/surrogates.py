"""Forward value and surrogate gradient of a quantizer's sides, plotted by autograd of the modules.

A side sees standard normal numbers in training mode: weights a layer of 16 filters of 64 x 3 x 3,
activations one sample of 64 channels of 24 x 24. Shown are the first filter and the first channel
within [-2, 2]: values, and the gradient of the sum of all values, at the start, in the middle and
at the end of training where a schedule moves them. What a method draws at random is seeded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnnbench.layers import QuantizerSpec, set_progress
from bnnbench.plots import STYLE, save
from bnnbench.quantizers.base import Identity, Side

STAGES = {"start": 0.0, "middle": 0.5, "end": 1.0}
RANGE = 2.0
_WEIGHT, _MAP = (16, 64, 3, 3), (1, 64, 24, 24)
_PANEL = (2.1, 1.6)  # width and height of one panel, inches
_DPI = 110  # for the width of a page on a screen
_POINTS = {"start": ("#fdae6b", 4.0), "middle": ("#4292c6", 2.6), "end": ("#08306b", 1.6)}


class Curve(NamedTuple):
    """Points sorted by ``x``; ``gradient`` is d(sum of values) / dx."""

    x: Tensor
    value: Tensor
    gradient: Tensor


def side_curves(spec: QuantizerSpec) -> dict[str, dict[str, Curve]]:
    """The curves of ``weights`` and ``activations`` by stage; real sides are left out.

    One stage, ``end``, where training progress moves nothing.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        sides = {"weights": spec.weight(_WEIGHT), "activations": spec.activation(_MAP[1])}
        inputs = {"weights": torch.randn(_WEIGHT), "activations": torch.randn(_MAP)}
        return {
            name: _stages(side.double().train(), inputs[name].double())
            for name, side in sides.items()
            if not isinstance(side, Identity)
        }


def _stages(side: Side, x: Tensor) -> dict[str, Curve]:
    curves = {stage: _curve(side, x, progress) for stage, progress in STAGES.items()}
    end = curves["end"]
    if all(map(torch.equal, (*end, *end), (*curves["start"], *curves["middle"]))):
        return {"end": end}
    return curves


def _curve(side: Side, x: Tensor, progress: float) -> Curve:
    torch.manual_seed(1)
    set_progress(side, progress, 1)
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        side.epoch_start(leaf)
    value = side(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    count = x[0].numel() if len(x) > 1 else x[0, 0].numel()  # of a filter, of a channel
    parts = [part.detach().flatten()[:count] for part in (leaf, value, gradient)]
    order = parts[0].argsort()
    order = order[parts[0][order].abs() <= RANGE]
    return Curve(*(part[order] for part in parts))


def draw_surrogates(spec: QuantizerSpec, stem: Path) -> None:
    """Write ``<stem>.png``: two panels a binarized side, value and gradient."""
    from matplotlib import rc_context  # imported where it draws: it takes half a second
    from matplotlib.figure import Figure

    curves = side_curves(spec)
    with rc_context(STYLE | {"font.size": 7.5}):
        size = (2 * len(curves) * _PANEL[0], _PANEL[1])
        figure = Figure(size, layout="constrained")
        axes = iter(figure.subplots(1, 2 * len(curves), squeeze=False)[0])
        for side, stages in curves.items():
            for kind in ("value", "gradient"):
                _panel(next(axes), f"{side}: {kind}", kind, stages)
        save(figure, stem, ("png",), dpi=_DPI)


def _panel(axis: Any, title: str, kind: str, stages: dict[str, Curve]) -> None:
    """Points, no line: a method's statistics and draws need not be smooth in ``x``."""
    axis.set_title(title, loc="left", fontsize=8)
    axis.set_xlim(-RANGE, RANGE)
    axis.axhline(0, color="#bbbbbb", linewidth=0.7)
    for stage, curve in stages.items():
        colour, size = _POINTS[stage]  # what lies beneath stays visible
        axis.plot(curve.x, getattr(curve, kind), ".", color=colour, markersize=size, label=stage)
    if len(stages) > 1 and kind == "gradient":
        axis.legend(loc="upper right", fontsize=6.5, markerscale=2, handletextpad=0)
