"""OmegaConf resolvers of the config groups; imports lightly: it is loaded at every start."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from bnnbench.sweep.fingerprint import register_resolvers as register_run_name


def _checkout() -> str:
    """The checkout's top, or the working folder where the package is installed without one."""
    top = Path(__file__).resolve().parents[2]
    return str(top if (top / "conf").is_dir() else Path.cwd())


def _evaluates_on(val_fraction: float) -> str:
    return "val" if val_fraction > 0 else "test"


def register() -> None:
    """Make ``${checkout:}``, ``${evaluates_on:}`` and ``${run_name:}`` known."""
    OmegaConf.register_new_resolver("checkout", _checkout, replace=True)
    OmegaConf.register_new_resolver("evaluates_on", _evaluates_on, replace=True)
    register_run_name()
