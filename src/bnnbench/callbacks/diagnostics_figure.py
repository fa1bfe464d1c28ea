"""Curves of what ``BinaryDiagnostics`` has kept: a panel a question, a line a layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnnbench.plots import PAGE, STYLE, literal, save

# Title, solid and perhaps dashed value, and whether the axis is logarithmic.
PANELS = (
    ("signs of weights that flipped", ("flipped",), True),
    ("entropy of weights' signs, bits", ("weight_entropy",), False),
    ("gradient of weights: — behind, - - before the sign", (), True),
    ("inputs outside of the window", ("saturated",), False),
    ("channels that never change", ("dead",), False),
    ("entropy of activations' signs, bits", ("activation_entropy",), False),
    ("gradient of activations: — behind, - - before the sign", (), True),
)
NORMS = {
    2: ("weight_grad_quantized", "weight_grad_latent"),
    6: ("activation_grad_quantized", "activation_grad_real"),
}


def draw(layers: Sequence[str], epochs: Sequence[dict[str, Any]], stem: Path) -> Path:
    """Write ``<stem>.png``: values by epoch, the layers from dark (first) to light (last)."""
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    scale = colormaps["viridis"]
    colours = [scale(0.95 * i / max(len(layers) - 1, 1)) for i in range(len(layers))]
    with rc_context(STYLE):
        figure = Figure((PAGE, 6.4), layout="constrained")
        axes = list(figure.subplots(4, 2, sharex=True).flat)
        for number, (title, values, logarithmic) in enumerate(PANELS):
            for name, style in zip(NORMS.get(number, values), ("-", "--"), strict=False):
                _lines(axes[number], name, style, colours, epochs)
            axes[number].set_title(title)
            axes[number].tick_params(labelbottom=True)
            axes[number].xaxis.get_major_locator().set_params(integer=True)
            if not logarithmic:
                axes[number].set_ylim(-0.02, 1.02)
            elif any((line.get_ydata(orig=False) > 0).any() for line in axes[number].lines):
                axes[number].set_yscale("log")
        figure.supxlabel("epoch", fontsize=7)
        _legend(axes[-1], layers, colours)
        save(figure, stem, ("png",))
    return stem.with_name(f"{stem.name}.png")


def _lines(
    panel: Any, name: str, style: str, colours: Sequence[Any], epochs: Sequence[dict[str, Any]]
) -> None:
    """A line a layer that has the value in any epoch; marks, so that one epoch is seen as well."""
    numbers = [row["epoch"] + 1 for row in epochs]
    for layer, colour in enumerate(colours):
        column = [row[name][layer] for row in epochs]
        if any(value is not None for value in column):
            points = [float("nan") if value is None else value for value in column]
            panel.plot(
                numbers, points, style, color=colour, linewidth=0.9, marker=".", markersize=3
            )


def _legend(panel: Any, layers: Sequence[str], colours: Sequence[Any]) -> None:
    """Names of at most twelve layers, evenly spread."""
    panel.axis("off")
    most = min(len(layers), 12)
    shown = {round(i * (len(layers) - 1) / max(most - 1, 1)) for i in range(most)}
    for layer in sorted(shown):
        panel.plot([], [], color=colours[layer], label=literal(layers[layer]))
    panel.legend(loc="center", ncols=2)
