"""Weights of classes against PyTorch's own, scikit-learn's rule, and repeated images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from bnnbench.checks.values import check_config
from bnnbench.data.base import ClassificationData
from bnnbench.losses import task_loss
from bnnbench.losses.class_weights import ClassWeighted, balanced_weights
from bnnbench.runs import build, run
from bnnbench.runs.preflight import preflight

Compose = Callable[..., DictConfig]
KINDS = ("task", "squared_hinge", "sse")


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(9, 3, generator=draw), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])


def test_balanced_is_scikit_learns_rule(batch: tuple[Tensor, Tensor]) -> None:
    labels = batch[1].numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(batch[1].bincount()).numpy(), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_pytorchs(batch: tuple[Tensor, Tensor], smoothing: float) -> None:
    weights = [1.0, 2.0, 0.5]
    loss = ClassWeighted(task_loss("classification", smoothing), 3, weights)
    expected = F.cross_entropy(*batch, torch.tensor(weights), label_smoothing=smoothing)
    torch.testing.assert_close(loss(*batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_two_is_each_image_twice(batch: tuple[Tensor, Tensor], kind: str) -> None:
    logits, labels = batch
    plain = task_loss("classification", kind=kind)
    twice = torch.cat([torch.arange(9), (labels == 1).nonzero().flatten()])
    torch.testing.assert_close(
        ClassWeighted(plain, 3, [1, 2, 1])(*batch), plain(logits[twice], labels[twice])
    )
    torch.testing.assert_close(ClassWeighted(plain, 3, [3, 3, 3])(*batch), plain(*batch))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_unweighted_to_the_bit(batch: tuple[Tensor, Tensor], kind: str) -> None:
    plain = task_loss("classification", kind=kind)
    assert torch.equal(ClassWeighted(plain, 3, [1, 9, 1]).eval()(*batch), plain(*batch))


def test_the_integer_gradient_of_wage_reaches_the_logits(batch: tuple[Tensor, Tensor]) -> None:
    logits = batch[0].clone().requires_grad_()
    loss = ClassWeighted(task_loss("classification", kind="sse", error_bits=8), 3, [1, 2, 1])
    loss(logits, batch[1]).backward()
    assert logits.grad is not None
    steps = logits.grad * 2**7
    assert torch.equal(steps, steps.round())
    assert steps.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS[:2])
def test_shares_of_one_class_are_its_label(batch: tuple[Tensor, Tensor], kind: str) -> None:
    loss = ClassWeighted(task_loss("classification", kind=kind), 3, [1, 2, 5])
    shares = F.one_hot(batch[1], 3).float()
    torch.testing.assert_close(loss(batch[0], shares), loss(*batch))


def test_nothing_of_it_is_in_a_checkpoint() -> None:
    loss = ClassWeighted(nn.CrossEntropyLoss(), 3, "balanced")
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dataset.class_weights=[1,2]", r"class_weights=\[1, 2\]: .*10 weights, one a class"),
        ("dataset.class_weights=ballanced", "give balanced or null or a list"),
        ("dataset.class_weights=[1,0]", "above 0"),
        ("dataset.class_weights=2", "give balanced or null or a list"),
        (
            "dataset.class_weights=balanced loss=distributional teacher=joint recipe=two_step",
            "without effect: loss=distributional uses no label",
        ),
        (
            "dataset=shapes backbone=ssd300_resnet18 +dataset.class_weights=balanced",
            "class_weights=balanced is for classification",
        ),
    ],
)
def test_what_makes_no_sense_is_told(compose: Compose, words: str, message: str) -> None:
    cfg = compose("backbone=resnet20", *words.split())
    with pytest.raises(ValueError, match=message):
        _ = check_config(cfg), build.build_task(cfg)


def test_an_empty_class_is_told_before_the_first_run(compose: Compose, tmp_path: Path) -> None:
    images = np.zeros((4, 32, 32, 3), np.uint8)
    labels = np.array([0, 1, 2, 3])
    (tmp_path / "data").mkdir()
    content = {f"{part}_images": images for part in ("train", "test")}
    content |= {f"{part}_labels": labels for part in ("train", "test")}
    np.savez(tmp_path / "data" / "cifar10.npz", **content)  # pyright: ignore[reportArgumentType]
    words = ["dataset=cifar10", "dataset.class_weights=balanced", "backbone=resnet20"]
    with pytest.raises(ValueError, match=r"no training image is of class 4, 5, 6, 7, 8, 9"):
        preflight([compose(*words, "trainer.max_epochs=1", "dataset.batch_size=2")])


@pytest.mark.parametrize("weights", ["balanced", "[1,1,1,1,1,1,1,1,1,2]"])
def test_a_run_trains_with_them_and_goes_on(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch, fail_at, weights: str
) -> None:
    """A cut run ends as an uncut one; balanced weights are those of what is trained on."""
    seen: list[Tensor] = []
    forward = ClassWeighted.forward

    def watched(self: ClassWeighted, logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(self.weights.clone())
        return forward(self, logits, labels)

    monkeypatch.setattr(ClassWeighted, "forward", watched)
    words = [*short, f"dataset.class_weights={weights}", "dataset.val_fraction=0.5"]
    cfg = compose(*words)
    with monkeypatch.context() as patch:
        fail_at(patch, 2, RuntimeError("cut"))
        with pytest.raises(RuntimeError, match="cut"):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    cut = json.loads((Path(cfg.paths.output_dir) / "result.json").read_text())
    other = compose(*words, f"paths.output_dir={cfg.paths.output_dir}_whole")
    Path(other.paths.output_dir).mkdir()
    run.execute(other, Path(other.paths.output_dir), quiet=True)
    whole = json.loads((Path(other.paths.output_dir) / "result.json").read_text())
    assert whole["history"]["train/loss"] == cut["history"]["train/loss"]
    data = build.build_datamodule(cfg)
    assert isinstance(data, ClassificationData)
    data.setup("fit")
    counts = data.class_counts()
    assert int(counts.sum()) == data.train_images
    expected = balanced_weights(counts) if weights == "balanced" else torch.tensor([1.0] * 9 + [2])
    for each in (seen[0], seen[-1]):
        torch.testing.assert_close(each.double(), expected.double(), atol=1e-5, rtol=1e-5)
