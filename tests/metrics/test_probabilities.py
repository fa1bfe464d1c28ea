"""Scores of a classifier's probabilities, against scikit-learn, numpy and sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, recall_score

from bnnbench.metrics.probabilities import BINS, ProbabilityScores

from .processes import answers


def sample(classes: int, count: int = 203, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=draw)
    return logits, torch.randint(classes, (count,), generator=draw)


def scores(logits: torch.Tensor, labels: torch.Tensor, batches: int = 4) -> dict:
    metric = ProbabilityScores(logits.shape[1])
    parts = zip(logits.tensor_split(batches), labels.tensor_split(batches), strict=True)
    for part, part_labels in parts:
        metric.update(part, part_labels)
    return metric.compute()


def softmax(logits: torch.Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy())
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_proper_scores_are_scikit_learns(classes: int) -> None:
    logits, labels = sample(classes)
    found, p = scores(logits, labels), softmax(logits)
    expected = log_loss(labels, p, labels=range(classes))
    assert float(found["nll"]) == pytest.approx(expected, rel=1e-5)
    squares = (p - np.eye(classes)[labels]) ** 2
    assert float(found["brier"]) == pytest.approx(squares.sum(1).mean(), rel=1e-5)
    if classes == 2:  # scikit-learn's has only the one class
        half = brier_score_loss(labels, p[:, 1])
        assert float(found["brier"]) == pytest.approx(2 * half, rel=1e-5)


def test_known_scores() -> None:
    """A sure hit, a sure miss, and a coin."""
    logits = torch.tensor([[0.0, 100], [0, 100], [0, 0]])
    found = scores(logits, torch.tensor([1, 0, 0]), batches=1)
    assert float(found["brier"]) == pytest.approx((0 + 2 + 0.5) / 3)
    assert float(found["nll"]) == pytest.approx((0 + 100 + np.log(2)) / 3)


def test_top5_is_among_the_five_highest() -> None:
    logits, labels = sample(12)
    order = np.argsort(-logits.numpy(), axis=1)[:, :5]
    expected = np.mean([label in row for label, row in zip(labels.numpy(), order, strict=True)])
    assert float(scores(logits, labels)["top5"]) == pytest.approx(expected)


def test_of_equal_logits_the_first_five_classes_count() -> None:
    labels = torch.arange(8)
    found = scores(torch.zeros(8, 8), labels)
    assert float(found["top5"]) == 5 / 8
    assert found["class_accuracy"].tolist() == [1] + 7 * [0]  # as argmax
    tied = torch.tensor([[1.0, 2, 2, 0, 0, 0, 0]]).repeat(2, 1)
    assert scores(tied, torch.tensor([2, 1]), 1)["class_accuracy"][1:3].tolist() == [1, 0]


@pytest.mark.parametrize("classes", [2, 5])
def test_five_classes_have_no_top5(classes: int) -> None:
    assert bool(scores(*sample(classes))["top5"].isnan())


def test_accuracy_by_class_is_recall_and_undefined_without_images() -> None:
    logits, labels = sample(10)
    kept = labels != 4
    logits, labels = logits[kept], labels[kept]
    found = scores(logits, labels)["class_accuracy"].numpy()
    expected = recall_score(
        labels, logits.argmax(1), average=None, labels=range(10), zero_division=0
    )
    assert np.isnan(found[4])
    assert np.delete(found, 4) == pytest.approx(np.delete(expected, 4))


def test_logits_that_are_no_numbers_are_no_hits() -> None:
    found = scores(torch.full((3, 10), torch.nan), torch.arange(3), batches=1)
    assert float(found["top5"]) == 0
    assert bool(found["nll"].isnan())


def test_half_precision_is_counted_in_single() -> None:
    logits, labels = sample(10)
    half = logits.bfloat16()
    found, expected = scores(half, labels), scores(half.float(), labels)
    assert float(found["nll"]) == float(expected["nll"])


def process(rank: int) -> dict:
    logits, labels = sample(10)
    return scores(logits[rank::2], labels[rank::2])


def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    alone = scores(*sample(10))
    for found in answers(process, tmp_path):
        for name, value in alone.items():
            assert torch.allclose(found[name], value, rtol=1e-5, equal_nan=True), name


@pytest.mark.parametrize("classes", [2, 10])
def test_bins_of_confidence_are_numpys_histogram(classes: int) -> None:
    logits, labels = sample(classes)
    images, confidence, accuracy = scores(logits, labels)["reliability"].numpy()
    p = softmax(logits)
    place = np.minimum(np.digitize(p.max(1), np.linspace(0, 1, BINS + 1)) - 1, BINS - 1)
    right = p.argmax(1) == labels.numpy()
    for bin in range(BINS):
        inside = place == bin
        assert images[bin] == inside.sum()
        if inside.any():
            assert confidence[bin] == pytest.approx(p.max(1)[inside].mean(), abs=1e-6)
            assert accuracy[bin] == pytest.approx(right[inside].mean(), abs=1e-6)
        else:
            assert np.isnan([confidence[bin], accuracy[bin]]).all()


def test_certainty_is_in_the_last_bin() -> None:
    logits = torch.tensor([[1000.0, 0.0]]).repeat(3, 1)
    bins = scores(logits, torch.tensor([0, 0, 1]), 1)["reliability"]
    assert bins[:, -1].tolist() == [3, 1, pytest.approx(2 / 3)]
