"""Packages that are not in every installation: what needs one says so before time is spent."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

# The function that builds a logger -> modules that it needs, and the extra that brings them.
LOGGERS: dict[str, tuple[tuple[str, ...], str]] = {
    "bnnbench.runs.loggers.tensorboard_logger": (("tensorboard",), "tensorboard"),
    "bnnbench.runs.loggers.mlflow_logger": (("mlflow", "sqlalchemy", "alembic"), "mlflow"),
}


def check_packages(loggers: Mapping[Any, Any]) -> None:
    """Refuse loggers of a config whose packages are missing.

    Raises:
        ValueError: the message names the extra that brings them.
    """
    for key, node in loggers.items():
        if not node or "_target_" not in node:
            continue
        modules, extra = LOGGERS.get(node["_target_"], ((), ""))
        missing = [name for name in modules if find_spec(name) is None]
        if missing:
            raise ValueError(
                f"logger={key} needs {' and '.join(missing)}, which this installation has not: "
                f"pip install 'bnnbench[{extra}]', or choose logger=csv or wandb"
            )
