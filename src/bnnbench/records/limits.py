"""What keeps a run from part of its data, among the options of Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Option, and the value that limits nothing: 1 is one batch, 1.0 all of them.
LIMITS: dict[str, Any] = {
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "overfit_batches": 0.0,
    "fast_dev_run": False,
}


def limited(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a trainer's options that keep a run from part of its data.

    With ``overfit_batches`` or ``fast_dev_run`` the trainer sets the others itself.
    """
    found = {
        key: value
        for key, whole in LIMITS.items()
        if (value := trainer.get(key)) is not None and _differs(value, whole)
    }
    cause = next((key for key in ("fast_dev_run", "overfit_batches") if key in found), None)
    return {cause: found[cause]} if cause else found


def _differs(value: Any, whole: Any) -> bool:
    """``1`` is one batch, ``1.0`` all of them."""
    return value != whole or (value == 1 and isinstance(value, int) and isinstance(whole, float))
