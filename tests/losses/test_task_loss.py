"""Cross entropy against its closed form."""

import math

import pytest
import torch

from bnnbench.losses import task_loss


def test_cross_entropy_with_label_smoothing() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    log_sum = math.log(sum(math.exp(x) for x in (2.0, 0.0, -1.0)))
    terms = [log_sum - x for x in (2.0, 0.0, -1.0)]
    expected = 0.9 * terms[1] + 0.1 * sum(terms) / 3
    loss = task_loss("classification", label_smoothing=0.1)(logits, torch.tensor([1]))
    assert float(loss) == pytest.approx(expected)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing=1"):
        task_loss("classification", label_smoothing=1)
    with pytest.raises(ValueError, match="segmentation"):
        task_loss("segmentation")
