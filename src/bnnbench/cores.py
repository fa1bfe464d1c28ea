"""How many cores there are to work with. Imports lightly."""

from __future__ import annotations


def cores() -> int:
    """The cores that this process may use: of a job or a container, not of its machine."""
    import joblib  # knows of affinity masks and of containers' quotas

    return joblib.cpu_count()
