"""Metrics: operations and sizes."""

from bnnbench.metrics.operations import LayerCost, NetworkCost, count_operations

__all__ = ["LayerCost", "NetworkCost", "count_operations"]
