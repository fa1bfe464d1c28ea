"""Metrics: operations and sizes, average precision of detection."""

from bnnbench.metrics.operations import LayerCost, NetworkCost, count_operations
from bnnbench.metrics.voc_ap import VOCAveragePrecision

__all__ = ["LayerCost", "NetworkCost", "VOCAveragePrecision", "count_operations"]
