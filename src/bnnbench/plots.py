"""What all drawings share: their style, how they are written, a colour a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_DPI = 110
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "bnnbench",  # the same file every time
}


def literal(text: str) -> str:
    """Words as they are: a dollar sign in them starts no formula."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def row_colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour a name: distinct ones up to twenty names, a colour scale beyond."""
    from matplotlib import colormaps

    names = list(dict.fromkeys(names))
    if len(names) <= 20:
        palette = colormaps["tab10" if len(names) <= 10 else "tab20"].colors  # type: ignore
        return dict(zip(names, palette, strict=False))
    scale = colormaps["turbo"]
    return {name: scale(i / (len(names) - 1)) for i, name in enumerate(names)}


def save(figure: Any, stem: Path, formats: Sequence[str], photographs: bool = False) -> None:
    """Write `<stem>.<format>`, the same bytes every time; call it within `rc_context(STYLE)`.

    Over photographs the colours of thin lines stay what they are, although few pixels have them.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        if suffix == "png":
            _save_png(figure, path, photographs)
        else:
            figure.savefig(path, format=suffix, metadata={"Date": None})


def _save_png(figure: Any, path: Path, photographs: bool) -> None:
    """A palette PNG, a third of the size of a full-colour one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    size, pixels = canvas.get_width_height(), bytes(canvas.buffer_rgba())
    image = Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")
    method = Image.Quantize.FASTOCTREE if photographs else Image.Quantize.MEDIANCUT
    image.quantize(256, method, dither=Image.Dither.NONE).save(path, optimize=True)
