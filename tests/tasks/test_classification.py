"""What a classifier's evaluations log, on the way and at the end."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
QUIET |= {"enable_model_summary": False, "enable_checkpointing": False}


class Said(nn.Module):
    """A network whose logits are its input, with one parameter to train."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


def task_and_loader(
    probabilities: torch.Tensor, labels: torch.Tensor, **loss: Any
) -> tuple[Classification, DataLoader[Any]]:
    classes = probabilities.shape[1]
    recipe = Recipe("sgd", lr=1e-12, schedule="constant")
    task = Classification(Said(), task_loss("classification", **loss), recipe, classes)
    pairs = list(zip(probabilities.log(), labels, strict=True))
    return task, DataLoader(pairs, batch_size=32)  # type: ignore[arg-type]


def evaluated(task: Classification, loader: DataLoader[Any]) -> Any:
    return L.Trainer(**QUIET).test(task, loader, verbose=False)[0]


def coins(confidence: float, right: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images said to be the first of two classes with ``confidence``; a share of them is."""
    labels = (torch.arange(count) >= round(right * count)).long()
    return torch.tensor([confidence, 1 - confidence]).repeat(count, 1), labels


@pytest.mark.parametrize(("right", "error"), [(0.8, 0.0), (0.5, 0.3), (1.0, 0.2)])
def test_calibration_error_is_confidence_minus_accuracy(right: float, error: float) -> None:
    metrics = evaluated(*task_and_loader(*coins(0.8, right, 40)))
    assert metrics["test/ece"] == pytest.approx(error, abs=1e-6)


def test_calibration_errors_of_bins_are_weighed_and_do_not_cancel() -> None:
    """0.9 said where 0.7 is right (30 images), 0.6 said where all are right (10)."""
    one, other = coins(0.9, 0.7, 30), coins(0.6, 1.0, 10)
    together = (torch.cat(pair) for pair in zip(one, other, strict=True))
    task, loader = task_and_loader(*together)
    metrics = evaluated(task, loader)
    assert metrics["test/ece"] == pytest.approx((30 * 0.2 + 10 * 0.4) / 40, abs=1e-6)
    assert task.reliability is not None
    full = [place for place, images in enumerate(task.reliability["images"]) if images]
    found = [[task.reliability[key][place] for key in task.reliability] for place in full]
    assert found == [pytest.approx([10, 0.6, 1.0]), pytest.approx([30, 0.9, 0.7])]


def test_logits_between_0_and_1_are_no_probabilities() -> None:
    task, _ = task_and_loader(*coins(0.8, 0.5, 8))
    loader = DataLoader([(torch.tensor([1.0, 0.0]), torch.tensor(0))] * 8)  # type: ignore
    sure = float(torch.tensor([1.0, 0.0]).softmax(0)[0])
    assert evaluated(task, loader)["test/ece"] == pytest.approx(1 - sure, abs=1e-6)


def test_the_final_evaluation_tells_all_and_one_on_the_way_no_more_than_before() -> None:
    torch.manual_seed(0)
    p, labels = torch.rand(70, 7).softmax(1), torch.arange(70) % 6
    task, loader = task_and_loader(p, labels, kind="squared_hinge")
    trainer = L.Trainer(**QUIET, max_epochs=1)
    trainer.fit(task, loader, loader)
    names = {name for name in trainer.callback_metrics if name.startswith("test/")}
    assert names == {"test/acc", "test/loss"}
    assert (task.class_accuracy, task.eval_images) == (None, 70)
    metrics = trainer.test(task, loader, verbose=False)[0]
    assert set(metrics) == {f"test/{name}" for name in task.metric_names}
    right = p.argmax(1) == labels
    expected = [float(right[labels == label].float().mean()) for label in range(6)]
    assert task.class_accuracy == [*map(pytest.approx, expected), None]
    # of the softmax, not of the loss
    nll = nn.functional.cross_entropy(p.log(), labels)
    assert metrics["test/nll"] == pytest.approx(float(nll), rel=1e-5)
    assert metrics["test/loss"] != pytest.approx(metrics["test/nll"])


def test_what_is_undefined_is_not_logged() -> None:
    task, loader = task_and_loader(*coins(0.8, 0.5, 8))
    assert "test/top5" in {f"test/{name}" for name in task.metric_names} - set(
        evaluated(task, loader)
    )


def test_images_are_counted_where_a_limit_leaves_some_out() -> None:
    task, loader = task_and_loader(*coins(0.8, 0.5, 80))
    L.Trainer(**QUIET, limit_test_batches=2).test(task, loader, verbose=False)
    assert task.eval_images == 64


def test_an_epochs_loss_is_the_mean_of_its_images_and_not_of_its_batches() -> None:
    """Batches of 32 sure images and of 3 that are wrong."""
    one, other = coins(0.9, 1.0, 32), coins(0.9, 0.0, 3)
    p, labels = (torch.cat(pair) for pair in zip(one, other, strict=True))
    task, loader = task_and_loader(p, labels)
    trainer = L.Trainer(**QUIET, max_epochs=1)
    trainer.fit(task, loader, loader)
    expected = float(nn.functional.nll_loss(p.log(), labels))
    for name in ("train/loss", "test/loss"):
        assert float(trainer.callback_metrics[name]) == pytest.approx(expected, rel=1e-5)


def test_training_on_shares_is_cross_entropy_by_share_and_counts_the_larger() -> None:
    """Two images, said to be of class 0 and class 1 with 0.7; shares 0.8 and 0.1 in class 0."""
    said = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    shares = torch.tensor([[0.8, 0.2], [0.1, 0.9]])
    task, loader = task_and_loader(said, shares, label_smoothing=0.1)
    trainer = L.Trainer(max_epochs=1, **QUIET)
    trainer.fit(task, loader)
    smoothed = 0.9 * shares + 0.1 / 2
    expected = -(smoothed * said.log()).sum(1).mean()
    assert float(trainer.logged_metrics["train/loss"]) == pytest.approx(float(expected), abs=1e-6)
    assert float(trainer.logged_metrics["train/acc"]) == 1.0
    task, loader = task_and_loader(said, shares.flip(0))
    trainer = L.Trainer(max_epochs=1, **QUIET)
    trainer.fit(task, loader)
    assert float(trainer.logged_metrics["train/acc"]) == 0.0


def test_predictions_are_probabilities_with_labels_or_without() -> None:
    probabilities = torch.rand(70, 3).softmax(1)
    task, loader = task_and_loader(probabilities, torch.zeros(70, dtype=torch.int64))
    bare = DataLoader(list(probabilities.log()), batch_size=32)  # type: ignore[arg-type]
    for images in (loader, bare):
        said = L.Trainer(**QUIET).predict(task, images)
        assert said is not None
        torch.testing.assert_close(torch.cat(said), probabilities)  # type: ignore[arg-type]


def test_a_training_in_16_bits_is_evaluated_in_32() -> None:
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    net = nn.Sequential(nn.Linear(4, 2))
    net[0].register_forward_hook(lambda module, _, y: seen[module.training].add(y.dtype))
    recipe = Recipe("sgd", lr=0.1, schedule="constant")
    task = Classification(net, task_loss("classification"), recipe, 2)
    pairs = [(torch.randn(4), torch.tensor(0)) for _ in range(8)]
    loader = DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    trainer = L.Trainer(**QUIET, max_epochs=1, precision="bf16-mixed")
    trainer.fit(task, loader, loader)
    trainer.test(task, loader, verbose=False)
    trainer.predict(task, loader)
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}
