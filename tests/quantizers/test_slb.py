"""SLB: expectations over two logits, their temperature, the hard end of training."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress

PROGRESS = [(0.0, 1.0), (0.2, 1.0), (0.3, 1470**0.25), (0.4, 1470**0.5), (0.5, 1470**0.75)]


def _side(shape, progress=0.0, **options):
    side = load_quantizer("slb", **options).weight(tuple(shape)).double()
    set_progress(side, progress, 1)
    return side


def _signs(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0).double()


def _expectation(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Over {-1, +1}; ``logits`` (2, ...)."""
    values = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(-1, *(1,) * (logits.dim() - 1))
    return ((logits / temperature).softmax(0) * values).sum(0)


@pytest.mark.parametrize(("progress", "sharpness"), PROGRESS)
def test_weight_in_training(progress, sharpness, weight, gradient, upstream):
    side, w, g = _side(weight.shape, progress), weight.numpy() / 20, upstream(weight)
    value, grad = gradient(side, weight / 20, g)
    # the likelihood of +1 for logits +-w / sqrt(2)
    p = 1 / (1 + np.exp(-np.sqrt(2) * sharpness * w))
    assert_allclose(value, 2 * p - 1, rtol=1e-6, atol=1e-9)
    slope = 2 * np.sqrt(2) * sharpness * p * (1 - p)
    assert_allclose(grad, slope * g.numpy(), rtol=1e-4, atol=1e-9)  # sharpness began in float32


def test_sgd_moves_it_as_it_moves_two_logits(upstream):
    """With momentum and weight decay, over steps: the same values."""
    torch.manual_seed(0)
    logits = nn.Parameter(torch.randn(2, 6, 4, dtype=torch.float64))
    latent = nn.Parameter((logits[1] - logits[0]).detach() / math.sqrt(2))
    side, target = _side((6, 4)), upstream(latent)
    options = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}
    optimizers = [torch.optim.SGD([parameter], **options) for parameter in (logits, latent)]
    before = side(latent).detach()
    for _ in range(10):
        values = [_expectation(logits, 1.0), side(latent)]
        for optimizer, value in zip(optimizers, values, strict=True):
            optimizer.zero_grad()
            (value - target).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(side(latent), _expectation(logits, 1.0))
    assert (side(latent) - before).abs().max() > 0.5


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_evaluation_takes_the_likelier_value(progress, weight):
    assert torch.equal(_side(weight.shape, progress).eval()(weight), _signs(weight))


@pytest.mark.parametrize("progress", [0.6, 0.8, 1.0])
def test_the_end_of_training_has_the_values_of_evaluation(progress, weight, gradient, upstream):
    side = _side(weight.shape, progress)
    weight[0, 0, 0] = torch.tensor([0.0, -0.0, 1e-9])
    value, grad = gradient(side, weight, upstream(weight))
    assert torch.equal(value, _signs(weight))
    assert torch.equal(value, side.eval()(weight))
    assert not grad.any()
    assert float(side.schedule.sharpness) == 1470


def test_training_before_its_end_is_almost_hard(weight):
    value = _side(weight.shape, 0.599)(weight)
    assert (value - _signs(weight)).abs().mean() < 1e-2


def test_readme_s_schedule():
    side = _side((1, 1), 0.65, start=0.4, end=0.9, sharpness=1.03**250)
    assert float(side.schedule.sharpness) == pytest.approx(1.03**125)
    assert not side.schedule.hard
    set_progress(side, 9, 10)
    assert float(side.schedule.sharpness) == pytest.approx(1.03**250)
    assert side.schedule.hard


@pytest.mark.parametrize("progress", [0.3, 0.7])
def test_schedule_survives_a_state_dict(progress, weight):
    trained, fresh = _side(weight.shape, progress), _side(weight.shape)
    assert not torch.allclose(fresh(weight), trained(weight))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(weight), trained(weight))


@pytest.mark.parametrize("wrong", [{"start": 0.6}, {"end": 1.1}, {"sharpness": 0.5}])
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match="SLB needs 0 <= start < end <= 1 <= sharpness, got"):
        _side((1, 1), **wrong)


def test_activation(x, gradient, upstream):
    g = upstream(x)
    value, grad = gradient(load_quantizer("slb").activation(4), x, g)
    assert torch.equal(value, _signs(x))
    assert torch.equal(grad, g * (x.abs() < 1))
