"""ReSTE: one scale a layer, the power function's slope in three pieces, the power's schedule."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress


def _slope(x: np.ndarray, o: float) -> np.ndarray:
    """The released code's pieces, element by element."""
    slopes = np.zeros_like(x)
    for index, value in np.ndenumerate(np.abs(x)):
        if value < 0.1:
            slopes[index] = 10 * 0.1 ** (1 / o)
        elif value < 1.5:
            slopes[index] = value ** ((1 - o) / o) / o
    return slopes


POWERS = [(0, 1.0), (50, 1 + 2 * (1 - np.sqrt(0.5))), (100, 3.0)]


@pytest.mark.parametrize(("epoch", "o"), POWERS)
def test_weight(epoch, o, weight, gradient, upstream):
    weight.view(-1)[:3] = torch.tensor([1e-9, -0.05, 1.6])
    side, g = load_quantizer("reste").weight(tuple(weight.shape)).double(), upstream(weight)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, weight, g)
    w, upper = weight.numpy(), g.numpy()
    scale, code = np.abs(w).mean(), np.where(w >= 0, 1, -1)
    assert_allclose(value, scale * code, rtol=1e-13)
    through_scale = code / w.size * (upper * code).sum()  # the scale is not detached
    assert_allclose(grad, scale * upper * _slope(w, o) + through_scale, rtol=1e-9, atol=1e-13)


def test_scale_is_one_of_the_layer(weight):
    weight[0] *= 9
    parts = load_quantizer("reste").weight(tuple(weight.shape)).decompose(weight)
    assert parts.scale.numel() == 1
    assert float(parts.scale) == pytest.approx(np.abs(weight.numpy()).mean())


@pytest.mark.parametrize(("epoch", "o"), POWERS)
def test_activation(epoch, o, x, gradient, upstream):
    x.view(-1)[6:9] = torch.tensor([0.03, -0.099, -1.7])
    side, g = load_quantizer("reste").activation(4).double(), upstream(x)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    assert_allclose(grad, g.numpy() * _slope(x.numpy(), o), rtol=1e-9, atol=1e-14)


def test_gradient_at_the_edges_of_its_pieces(gradient):
    side = load_quantizer("reste").activation(1).double()
    set_progress(side, 1, 1)
    values = [0.0, -0.0, 0.0999, 0.1001, 1.499, 1.501]
    x = torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 6)
    _, grad = gradient(side, x, torch.ones_like(x))
    secant = 10 * 0.1 ** (1 / 3)
    expected = [secant] * 3 + [0.1001 ** (-2 / 3) / 3, 1.499 ** (-2 / 3) / 3, 0]
    assert_allclose(grad.flatten(), expected, rtol=1e-12)


def test_it_starts_as_the_clipped_straight_through_estimator(x, gradient, upstream):
    g = upstream(x)
    _, grad = gradient(load_quantizer("reste").activation(4).double(), x, g)
    torch.testing.assert_close(grad, torch.where(x.abs() < 1.5, g, 0.0))


def test_schedule_survives_a_state_dict():
    spec = load_quantizer("reste", o_end=5.0)
    trained, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(trained, 2, 3)
    fresh.load_state_dict(trained.state_dict())
    for side in (fresh[0].weight_quantizer, fresh[0].activation_quantizer):
        assert float(side.schedule.o) == pytest.approx(1 + 0.5 * 4)
    set_progress(fresh, 3, 3)
    assert float(fresh[0].weight_quantizer.schedule.o) == pytest.approx(5)


def test_a_power_below_straight_through_is_refused():
    with pytest.raises(ValueError, match=r"quantizer\.o_end=0\.5"):
        load_quantizer("reste", o_end=0.5).activation(4)
