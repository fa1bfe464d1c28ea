"""bnnbench: binary neural networks, composed, trained and compared."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bnnbench.backbones.convert import binarize
    from bnnbench.config import build_backbone, load_quantizer
    from bnnbench.layers import set_progress
    from bnnbench.packing.export import export
    from bnnbench.runs.trained import load
    from bnnbench.runs.zoo import load_pretrained

# Imported on first use: the sweeper's plugin runs at every start and must not load torch.
_PUBLIC = {
    "load_quantizer": "bnnbench.config",
    "build_backbone": "bnnbench.config",
    "binarize": "bnnbench.backbones.convert",
    "export": "bnnbench.packing.export",
    "load": "bnnbench.runs.trained",
    "load_pretrained": "bnnbench.runs.zoo",
    "set_progress": "bnnbench.layers",
    "losses": "bnnbench.losses",
    "metrics": "bnnbench.metrics",
    "runtime": "bnnbench.runtime",
}

__all__ = [
    "__version__",
    "binarize",
    "build_backbone",
    "export",
    "load",
    "load_pretrained",
    "load_quantizer",
    "set_progress",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bnnbench' has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    return module if name in ("losses", "metrics", "runtime") else getattr(module, name)
