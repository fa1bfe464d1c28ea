"""Soft targets and attention maps against closed forms in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from bnnbench.config import load_option
from bnnbench.losses.distillation import attention_loss, attention_map, soft_target_loss


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets(temperature):
    student, teacher = _random(5, 7).requires_grad_(), 3 * _random(5, 7, seed=1)
    loss = soft_target_loss(student, teacher, temperature)
    loss.backward()
    p = _softmax(teacher.numpy() / temperature)
    q = _softmax(student.detach().numpy() / temperature)
    assert float(loss.detach()) == pytest.approx(temperature**2 * (p * np.log(p / q)).sum() / 5)
    assert_allclose(student.grad, temperature * (q - p) / 5, rtol=1e-9)


def test_gradient_is_that_of_reactnets_distributional_loss():
    """Eq. 6: the mean over images of ``-sum p_teacher log p_student``."""
    student, teacher = _random(5, 7).requires_grad_(), _random(5, 7, seed=1)
    (-(teacher.softmax(1) * student.log_softmax(1)).sum(1)).mean().backward()
    expected, student.grad = student.grad, None
    soft_target_loss(student, teacher, 1.0).backward()
    torch.testing.assert_close(student.grad, expected)
    difference = student.detach().softmax(1) - teacher.softmax(1)
    torch.testing.assert_close(student.grad, difference / 5)


def test_the_teacher_itself_has_no_loss():
    logits = _random(4, 3)
    assert float(soft_target_loss(logits, logits + 2, 1.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("normalize", ["norm", "max"])
def test_attention(normalize):
    student, teacher = _random(2, 3, 4, 4), _random(2, 6, 4, 4, seed=1)
    maps = []
    for x in (student.numpy(), teacher.numpy()):
        q = (x**2).sum(axis=1).reshape(2, -1)
        size = np.sqrt((q**2).sum(1)) if normalize == "norm" else q.max(1)
        maps.append(q / size[:, None])
    assert_allclose(attention_map(student, normalize), maps[0], rtol=1e-12)
    expected = ((maps[0] - maps[1]) ** 2).mean()
    pairs = [student, student], [teacher, teacher]
    assert float(attention_loss(*pairs, normalize)) == pytest.approx(expected)


def test_attention_is_the_mean_over_positions_and_pairs_of_larq_zoo():
    """AttentionMatchingLossLayer: means of squares, each map by its maximum, NHWC there."""
    shapes = [(2, 3, 8, 8), (2, 5, 4, 4), (2, 4, 2, 2)]
    pairs = [
        [_random(*shape, seed=7 * side + i) for i, shape in enumerate(shapes)] for side in (0, 1)
    ]
    layers = []
    for ours, theirs in zip(*pairs, strict=True):
        energies = [np.square(x.permute(0, 2, 3, 1).numpy()).mean(-1) for x in (ours, theirs)]
        vectors = [e.reshape(len(e), -1) for e in energies]
        q_s, q_t = (v / v.max(-1, keepdims=True) for v in vectors)
        layers.append(np.square(q_s - q_t).mean(-1))
    assert float(attention_loss(*pairs, "max")) == pytest.approx(np.stack(layers, -1).mean())


def test_the_weights_are_larq_zoos_for_its_normalisation():
    """Stages 1 and 2 of its Real-to-Binary training: 30 of attention, 3 of the soft targets."""
    loss = load_option("loss", "attention", {})
    assert (loss["lambda"], loss.kd, loss.normalize) == (30.0, 3.0, "max")


def test_attention_does_not_see_the_scale_of_a_map():
    x = _random(2, 3, 4, 4)
    assert float(attention_loss([x], [5 * x], "norm")) == pytest.approx(0, abs=1e-20)
    assert torch.isfinite(attention_map(torch.zeros(1, 2, 3, 3), "norm")).all()


def test_maps_of_other_sizes_are_no_pair():
    with pytest.raises(RuntimeError):
        attention_loss([_random(2, 3, 4, 4)], [_random(2, 3, 2, 2)], "norm")
