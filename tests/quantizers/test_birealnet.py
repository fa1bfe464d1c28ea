"""Bi-Real Net: E|w| per filter, both weight gradients, ApproxSign."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer


@pytest.mark.parametrize("magnitude_aware", [False, True])
@pytest.mark.parametrize("name", ["birealnet", "reactnet"])  # ReActNet has the same weights
def test_weight(name, magnitude_aware, weight, gradient, upstream):
    spec, g = load_quantizer(name, magnitude_aware=magnitude_aware), upstream(weight)
    value, grad = gradient(spec.weight(tuple(weight.shape)), weight, g)
    w = weight.numpy()
    alpha = np.abs(w).mean(axis=(1, 2, 3), keepdims=True)
    assert_allclose(value, alpha * np.where(w >= 0, 1, -1), rtol=1e-14)
    factor = alpha if magnitude_aware else 1.0
    assert_allclose(grad, g.numpy() * (np.abs(w) < 1) * factor, rtol=1e-14)


def test_scale_is_per_filter(weight):
    side = load_quantizer("birealnet").weight(tuple(weight.shape))
    changed = weight.clone()
    changed[0] *= 3
    before, after = side.decompose(weight).scale, side.decompose(changed).scale
    assert before.shape == (6, 1, 1, 1)
    torch.testing.assert_close(after[0], 3 * before[0])
    assert torch.equal(after[1:], before[1:])


def test_activation(x, gradient, upstream):
    g = upstream(x)
    value, grad = gradient(load_quantizer("birealnet").activation(4), x, g)
    points = x.numpy()
    assert_allclose(value, np.where(points >= 0, 1, -1))
    slope = np.select(  # the four pieces of Eq. 6
        [points < -1, points < 0, points < 1], [0 * points, 2 + 2 * points, 2 - 2 * points], 0
    )
    assert_allclose(grad, g.numpy() * slope, rtol=1e-14, atol=1e-16)
