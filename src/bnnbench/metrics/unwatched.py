"""A mean that nobody looks at before the epoch ends, for losses of training steps."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MeanMetric


class UnwatchedMean(MeanMetric):
    """torchmetrics' weighted mean of scalars, to the last bit, that never waits for a device.

    ``MeanMetric`` looks at every value for one that is no number, and copies every weight to the
    device: both wait for all that a GPU has still to do. Here such a value makes the mean no number
    either.
    """

    def update(self, value: Tensor, weight: float = 1.0) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Count the scalar ``value``, on the metric's device, ``weight`` times."""
        self.mean_value += value.to(self.dtype) * weight
        self.weight += weight
