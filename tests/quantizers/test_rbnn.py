"""RBNN: rotations, the angle's weights and gradients, estimator, activations, output scale."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress
from bnnbench.quantizers import rbnn
from bnnbench.quantizers.rbnn import closest_factors, nearest_rotation

SLOPES = [(0, 100, 0.01), (2, 1, 1), (3, 1, 10)]  # epoch of 3, k, t; (2, ...) is t = 1


def _standardized(x: np.ndarray) -> tuple[np.ndarray, float]:
    d = x - x.mean()
    std = np.sqrt((d**2).sum() / (x.size - 1))
    return d / std, std


def _through(to_x: np.ndarray, x: np.ndarray, std: float) -> np.ndarray:
    """A gradient behind the standardisation."""
    to_centred = (to_x - x * (to_x * x).sum() / (x.size - 1)) / std
    return to_centred - to_centred.mean()


def _estimator(x: np.ndarray, k: float, t: float) -> np.ndarray:
    return np.maximum(0, k * (np.sqrt(2) * t - t**2 * np.abs(x)))


def _weight(w, g, theta, r1, r2, k, t):
    """Value and gradients to w and theta, filter by filter."""
    values, gradients, angles = np.empty_like(w), np.empty_like(w), np.empty(len(w))
    for o in range(len(w)):
        x, std = _standardized(w[o])
        r = (r1.T @ x.reshape(len(r1), len(r2)) @ r2).reshape(x.shape)
        share = abs(np.sin(theta[o]))
        v = (1 - share) * x + share * r
        values[o] = np.where(v >= 0, 1, -1)
        to_v = g[o] * _estimator(v, k, t)
        gradients[o] = _through(to_v * (1 - share), x, std)
        angles[o] = np.sign(np.sin(theta[o])) * np.cos(theta[o]) * (to_v * (r - x)).sum()
    return values, gradients, angles


def _activation(x: np.ndarray, g: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, sample by sample."""
    values, gradients = np.empty_like(x), np.empty_like(x)
    for i in range(len(x)):
        v, std = _standardized(x[i])
        values[i] = np.where(x[i] >= x[i].mean(), 1, -1)
        gradients[i] = _through(g[i] * _estimator(v, 1, max(t, 1)), v, std)
    return values, gradients


def _state(side) -> list[np.ndarray]:
    return [side.theta.detach().flatten().numpy(), side.r1.numpy(), side.r2.numpy()]


def _matrices(w: np.ndarray, rows: int) -> list[np.ndarray]:
    return [_standardized(filter_)[0].reshape(rows, -1) for filter_ in w]


def _gap(side, w: np.ndarray) -> float:
    _, r1, r2 = _state(side)
    rotated = [r1.T @ x @ r2 for x in _matrices(w, len(r1))]
    return float(sum(((np.where(v >= 0, 1, -1) - v) ** 2).sum() for v in rotated))


def _side(shape, **options):
    torch.manual_seed(0)
    return load_quantizer("rbnn", **options).weight(tuple(shape)).double()


@pytest.mark.parametrize(("epoch", "k", "t"), SLOPES)
def test_weight(epoch, k, t, weight, gradient, upstream):
    side, g = _side(weight.shape), upstream(weight)
    side.theta.data[0] *= -1
    side.epoch_start(weight)
    set_progress(side, epoch, 3)
    value, grad = gradient(side, weight, g)
    expected = _weight(weight.numpy(), g.numpy(), *_state(side), k, t)
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-6, atol=1e-9)  # t began in float32
    assert_allclose(side.theta.grad.flatten(), expected[2], rtol=1e-6)


def test_signs_of_the_standardised_filters_alone_are_flipped_in_part(weight):
    side = _side(weight.shape)
    plain = torch.where(weight >= weight.mean(dim=(1, 2, 3), keepdim=True), 1.0, -1.0).double()
    assert not torch.equal(side(weight), plain)
    nn.init.zeros_(side.theta)
    assert torch.equal(side(weight), plain)


def test_at_a_right_angle_no_gradient_reaches_the_weight(weight, gradient, upstream):
    """Why theta does not start there."""
    side = load_quantizer("rbnn").weight(tuple(weight.shape))
    nn.init.constant_(side.theta, math.pi / 2)
    _, grad = gradient(side, weight.float(), upstream(weight).float())
    assert not grad.any()


def test_angles_start_between_0_and_a_right_angle():
    theta = load_quantizer("rbnn").weight((500, 1, 1, 1)).theta.detach()
    assert theta.shape == (500, 1, 1, 1)
    assert 0 <= float(theta.min()) < 0.1 < 1.5 < float(theta.max()) < math.pi / 2


def test_rotations_are_orthogonal_and_random_from_torch_s_generator(weight):
    sides = [_side(weight.shape) for _ in range(2)]
    other = load_quantizer("rbnn").weight(tuple(weight.shape))
    assert not torch.allclose(sides[0].r1, other.r1.double())
    for moved in (False, True):
        for name in ("r1", "r2"):
            r, same = (getattr(side, name) for side in sides)
            assert torch.equal(r, same)
            identity = torch.eye(len(r), dtype=torch.float64)
            tolerance = 1e-12 if moved else 1e-6  # they began in float32
            torch.testing.assert_close(r.T @ r, identity, rtol=0, atol=tolerance)
        for side in sides:
            side.epoch_start(weight)


@pytest.mark.parametrize(
    ("n", "factors"), [(36, (6, 6)), (27, (3, 9)), (288, (16, 18)), (7, (1, 7)), (1, (1, 1))]
)
def test_matrices_are_as_square_as_can_be(n, factors):
    assert closest_factors(n) == factors
    side = load_quantizer("rbnn").weight((2, n))
    assert (len(side.r1), len(side.r2)) == factors


def test_the_nearest_rotation_is_the_best_of_many():
    torch.manual_seed(0)
    m = torch.randn(4, 4, dtype=torch.float64)
    best = (nearest_rotation(m) * m).sum()
    for _ in range(100):
        assert (nn.init.orthogonal_(torch.empty_like(m)) * m).sum() < best
    torch.testing.assert_close(best, torch.linalg.matrix_norm(m, "nuc"))


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 3, 3, 3), (6, 36), (6, 7)])
def test_no_round_widens_the_gap(shape, weight, monkeypatch):
    weight = weight.flatten()[: math.prod(shape)].view(shape).contiguous()
    monkeypatch.setattr(rbnn, "ROUNDS", 1)
    side = _side(shape)
    gaps = [_gap(side, weight.numpy())]
    for _ in range(20):
        side.epoch_start(weight)
        gaps.append(_gap(side, weight.numpy()))
    assert all(after <= before + 1e-9 for before, after in pairwise(gaps))
    assert gaps[3] < 0.9 * gaps[0]


def test_an_epoch_begins_with_three_rounds(weight):
    side = _side(weight.shape)
    _, r1, r2 = _state(side)
    matrices = _matrices(weight.numpy(), len(r1))
    for _ in range(3):
        codes = [np.where(r1.T @ x @ r2 >= 0, 1, -1) for x in matrices]
        u, _, vt = np.linalg.svd(sum(b @ r2.T @ x.T for b, x in zip(codes, matrices, strict=True)))
        r1 = vt.T @ u.T
        u, _, vt = np.linalg.svd(sum(x.T @ r1 @ b for b, x in zip(codes, matrices, strict=True)))
        r2 = u @ vt
    side.epoch_start(weight)
    assert_allclose(side.r1, r1, atol=1e-10)
    assert_allclose(side.r2, r2, atol=1e-10)


def test_rotations_survive_a_state_dict(weight):
    trained, fresh = _side(weight.shape), load_quantizer("rbnn").weight(tuple(weight.shape))
    trained.epoch_start(weight)
    set_progress(trained, 1, 2)
    fresh = fresh.double()
    fresh.load_state_dict(trained.state_dict())
    assert float(fresh.schedule.t) == pytest.approx(10**-0.5)
    assert torch.equal(fresh(weight), trained(weight))
    for side in (trained, fresh):
        side.epoch_start(0.9 * weight + 0.1)
    assert torch.equal(fresh.r1, trained.r1)
    assert torch.equal(fresh.r2, trained.r2)


def test_mixed_precision_has_the_same_signs():
    torch.manual_seed(0)
    weight = torch.randn(64, 16, 3, 3)  # some close to 0
    side = load_quantizer("rbnn").weight(tuple(weight.shape))
    value = side(weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(side(weight), value)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(("epoch", "k", "t"), SLOPES)
def test_activation_is_standardised_in_training_and_evaluation(
    epoch, k, t, mode, x, gradient, upstream
):
    side, g = load_quantizer("rbnn").activation(4).double().train(mode), upstream(x)
    set_progress(side, epoch, 3)
    x = x + torch.tensor([0.0, 3.0, -3.0], dtype=torch.float64).view(3, 1, 1, 1)
    value, grad = gradient(side, x, g)
    expected = _activation(x.numpy(), g.numpy(), t)
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-6, atol=1e-9)


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("rbnn").conv2d(4, 6, 3, bias=False, **options).double()
    set_progress(conv, 2, 3)
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w, state = conv.weight.detach().numpy(), _state(conv.weight_quantizer)
    codes = [_activation(x.numpy(), x.numpy(), 1)[0], _weight(w, w, *state, 1, 1)[0]]
    codes = [torch.tensor(code).requires_grad_() for code in codes]
    scale = conv.output.scale.detach().view(-1, 1, 1)
    plain = F.conv2d(*codes, None, **options)
    (scale * plain).backward(g)
    torch.testing.assert_close(out, scale * plain)
    to_x = _activation(x.numpy(), codes[0].grad.numpy(), 1)[1]
    assert_allclose(leaf.grad, to_x, rtol=1e-6, atol=1e-9)
    to_w = _weight(w, codes[1].grad.numpy(), *state, 1, 1)[1]
    assert_allclose(conv.weight.grad, to_w, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(conv.output.scale.grad, (g * plain.detach()).sum(dim=(0, 2, 3)))


def test_output_scale_starts_at_the_filter_s_mean_magnitude():
    conv = load_quantizer("rbnn").conv2d(4, 6, 3)
    torch.testing.assert_close(conv.output.scale, conv.weight.abs().mean(dim=(1, 2, 3)))


def test_a_constant_filter_stays_finite():
    side = load_quantizer("rbnn").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side.epoch_start(weight)
    side(weight).sum().backward()
    assert side.r1.isfinite().all()
    assert weight.grad.isfinite().all()
