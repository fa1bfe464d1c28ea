"""What a packed network computes, whatever its numbers are: equal work, equal time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def work_of(document: Mapping[str, Any]) -> str:
    """A short name of a packed network's operations, shapes and images.

    Two networks that have it in common differ in trained numbers only, so that a time measured of
    one is the other's.
    """
    kinds = [entry[:2] + [len(entry)] * (entry[0] == "signs") for entry in document["constants"]]
    parts = [document["image"], _without_numbers(document["nodes"]), kinds]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _without_numbers(value: Any) -> Any:
    """``value`` with every trained number as whether it is 0."""
    if isinstance(value, float):
        return float(value != 0)
    if isinstance(value, list):
        return [_without_numbers(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_numbers(each) for key, each in value.items()}
    return value
