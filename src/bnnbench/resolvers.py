"""OmegaConf resolvers of the config groups; imports lightly: it is loaded at every start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bnnbench.records.fingerprint import register_resolvers as register_run_name


def _checkout() -> str:
    """The checkout's top, or the working folder where the package is installed without one."""
    top = Path(__file__).resolve().parents[2]
    return str(top if (top / "conf").is_dir() else Path.cwd())


def _is_detection(root: DictConfig) -> bool:
    return root.dataset.get("task") == "detection"


def headline(_root_: DictConfig) -> str:
    """The metric that stands for a run, such as test/acc."""
    split = "val" if _root_.dataset.val_fraction > 0 else "test"
    return f"{split}/{'map' if _is_detection(_root_) else 'acc'}"


def _by_task(classification: Any, detection: Any, _root_: DictConfig) -> Any:
    return detection if _is_detection(_root_) else classification


def _part(total: int, fraction: float) -> int:
    if total == 0:  # a run that only counts
        return 0
    if not 0 < fraction < 1 or total < 2:
        raise ValueError(
            f"{total} epochs cannot be parted at {fraction}: two steps take two epochs"
        )
    return min(max(round(total * fraction), 1), total - 1)


def _found(key: str, _parent_: DictConfig) -> Any:
    """What a detection folder holds; the folder is read where a value is needed, and then once."""
    from bnnbench.data.voc_found import found  # takes an XML parser along

    value = found(key, _parent_)
    return ListConfig(value) if isinstance(value, list) else value


def register() -> None:
    """Make the resolvers of the config groups known.

    ``${headline:}`` is the metric that stands for a run, ``${by_task:a,b}`` is a for classification
    and b for detection, ``${length:list}`` counts; ``${part:total,fraction}`` epochs are the first
    part of a run and ``${rest:total,fraction}`` what it leaves, at least one each; ``${found:key}``
    of a data set is what its folder holds.
    """
    OmegaConf.register_new_resolver("checkout", _checkout, replace=True)
    OmegaConf.register_new_resolver("headline", headline, replace=True)
    OmegaConf.register_new_resolver("by_task", _by_task, replace=True)
    OmegaConf.register_new_resolver("length", len, replace=True)
    OmegaConf.register_new_resolver("found", _found, replace=True)
    OmegaConf.register_new_resolver("part", _part, replace=True)
    OmegaConf.register_new_resolver("rest", lambda n, f: n - _part(n, f), replace=True)
    register_run_name()
