"""The squared hinge loss element by element, and where it belongs."""

import pytest
import torch

from bnnbench.losses import task_loss
from bnnbench.losses.hinge import SquaredHinge
from bnnbench.runs import build

LOGITS = torch.tensor([[2.0, -0.5, -3.0], [0.25, 0.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])
# 1 - t z where that is above 0, t being +1 at the label and -1 elsewhere
MARGINS = torch.tensor([[0.0, 0.5, 0.0], [1.25, 1.0, 2.0]], dtype=torch.float64)


def test_is_the_mean_over_samples_and_classes() -> None:
    assert float(SquaredHinge()(LOGITS, LABELS)) == pytest.approx((0.5**2 + 1.25**2 + 1 + 4) / 6)


def test_gradient() -> None:
    """``-2 t max(0, 1 - t z) / (N C)``: none beyond the margin."""
    logits = LOGITS.clone().requires_grad_()
    SquaredHinge()(logits, LABELS).backward()
    targets = torch.tensor([[1.0, -1, -1], [-1, -1, 1]], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, -2 * targets * MARGINS / 6)


def test_of_shares_is_the_mean_over_their_labels() -> None:
    shares = torch.tensor([[0.75, 0.0, 0.25], [0.0, 0.5, 0.5]], dtype=torch.float64)
    loss = SquaredHinge()
    rows = [
        sum(share * loss(row[None], torch.tensor([label])) for label, share in enumerate(part))
        for row, part in zip(LOGITS, shares.tolist(), strict=True)
    ]
    assert float(loss(LOGITS, shares)) == pytest.approx(float(sum(rows)) / 2)
    hard = torch.eye(3, dtype=torch.float64)[LABELS]
    assert float(loss(LOGITS, hard)) == pytest.approx(float(loss(LOGITS, LABELS)))


def test_replaces_cross_entropy(compose) -> None:
    task = build.build_task(compose("backbone=resnet20", "loss=squared_hinge"))
    assert isinstance(task.loss, SquaredHinge)
    assert isinstance(task_loss("classification", kind="squared_hinge"), SquaredHinge)


def test_a_detector_is_refused(compose) -> None:
    ssd = ["backbone=ssd300_resnet18", "dataset=shapes", "dataset.image_size=64"]
    with pytest.raises(ValueError, match="squared_hinge is a loss of classification"):
        build.build_task(compose(*ssd, "loss=squared_hinge"))


def test_bad_options_are_refused(compose) -> None:
    with pytest.raises(ValueError, match=r"loss.kind='hinge'.*squared_hinge"):
        task_loss("classification", kind="hinge")
    with pytest.raises(Exception, match="label_smoothing"):
        compose("loss=squared_hinge", "loss.label_smoothing=0.1")
