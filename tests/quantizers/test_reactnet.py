"""ReActNet: RSign's learned threshold per channel (its weights: test_birealnet.py)."""

import pytest
import torch

from bnnbench.config import load_quantizer


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (9, 4)])  # of a convolution, of a linear layer
def test_rsign(shape, gradient, upstream):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    side, g = load_quantizer("reactnet").activation(4).double(), upstream(x)
    threshold = torch.tensor([-0.4, 0.0, 0.3, 1.5], dtype=torch.float64)
    side.threshold.data.copy_(threshold)
    u = x - threshold.view(1, 4, *(1 for _ in shape[2:]))
    value, grad = gradient(side, x, g)
    assert torch.equal(value, torch.where(u >= 0, 1.0, -1.0).double())
    expected = g * (2 - 2 * u.abs()).clamp(min=0)
    torch.testing.assert_close(grad, expected)
    others = [axis for axis in range(len(shape)) if axis != 1]
    torch.testing.assert_close(side.threshold.grad, -expected.sum(dim=others))


def test_threshold_belongs_to_one_channel(x):
    side = load_quantizer("reactnet").activation(4).double()
    before = side(x)
    side.threshold.data[2] = 10.0
    changed = (side(x) != before).any(dim=(0, 2, 3))
    assert changed.tolist() == [False, False, True, False]
    assert (side(x)[:, 2] == -1).all()


def test_decomposition_follows_the_threshold():
    side = load_quantizer("reactnet").activation(1)
    side.threshold.data.fill_(0.5)
    x = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1, 1)
    assert side.decompose(x).code.flatten().tolist() == [-1, 1, 1]
