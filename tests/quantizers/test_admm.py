"""ADMM: the projection against brute force, both updates, the penalty, convergence."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from torch import Tensor

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress
from bnnbench.optim.extragradient import Extragradient
from bnnbench.quantizers.admm import LEVELS, project


def _least_error(v: np.ndarray, levels: tuple[int, ...]) -> float:
    """Over every code there is, each with its own best alpha."""
    signed = sorted({sign * level for level in levels for sign in (-1, 1)})
    best = float((v**2).sum()) if 0 in levels else np.inf
    for q in itertools.product(signed, repeat=len(v)):
        if any(q):
            code = np.array(q, dtype=float)
            alpha = max(v @ code / (code @ code), 0.0)
            best = min(best, float(((v - alpha * code) ** 2).sum()))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", LEVELS)
def test_projection_is_the_nearest_of_all(levels, seed):
    v = np.random.default_rng(seed).standard_normal(5) * [1, 1, 0.3, 2, 1]
    g = project(torch.tensor(v), LEVELS[levels]).numpy()
    assert ((v - g) ** 2).sum() == pytest.approx(_least_error(v, LEVELS[levels]), rel=1e-9)


@pytest.mark.parametrize("levels", LEVELS)
def test_projection_of_a_set_is_itself(levels):
    code = torch.tensor([[1.0, -1.0], [LEVELS[levels][-1], -LEVELS[levels][0] or -1]])
    torch.testing.assert_close(project(0.3 * code, LEVELS[levels]), 0.3 * code)


@pytest.mark.parametrize("levels", LEVELS)
def test_zeros_stay_finite(levels):
    assert project(torch.zeros(3, 2), LEVELS[levels]).tolist() == [[0, 0]] * 3


def test_binary_has_the_mean_magnitude_of_the_layer(weight):
    g = project(weight, LEVELS["binary"])
    assert_allclose(g, np.abs(weight).mean() * np.where(weight >= 0, 1, -1), rtol=1e-12)


def test_training_sees_the_real_weight_and_evaluation_its_projection(weight, gradient, upstream):
    side = load_quantizer("admm").weight(tuple(weight.shape)).double()
    side.dual.copy_(0.3 * upstream(weight))
    g = upstream(weight)
    value, grad = gradient(side, weight, g)
    assert torch.equal(value, weight)
    assert torch.equal(grad, g)  # no estimator
    torch.testing.assert_close(side.eval()(weight), project(weight + side.dual, (1,)))


def test_rounds(weight):
    """G and L of three epochs, against the recursion written out, rho from 0.1 to 10."""
    options = {"levels": "ternary", "rho_start": 0.1, "rho_end": 10.0}
    side = load_quantizer("admm", **options).weight(tuple(weight.shape)).double()
    multiplier = torch.zeros_like(weight)  # unscaled: rho L
    for epoch, rho in enumerate([0.1, 1.0, 10.0]):
        weight = weight * 0.9 + 0.01 * epoch
        before = rho / 10  # of the epoch that ends
        set_progress(side, epoch, 2)
        side.epoch_start(weight)
        g = project(weight + multiplier / before, LEVELS["ternary"])
        multiplier = multiplier + before * (weight - g) if epoch else multiplier
        assert float(side.rho) == pytest.approx(rho)
        torch.testing.assert_close(side.g, g)
        torch.testing.assert_close(side.dual, multiplier / rho)


def test_penalty_is_the_gradient_of_the_augmented_lagrangian(weight, upstream):
    side = load_quantizer("admm", rho_start=0.7).weight(tuple(weight.shape)).double()
    side.epoch_start(weight)
    side.dual.copy_(upstream(weight))
    w = weight.clone().requires_grad_()
    (w.sin().sum() + 0.7 / 2 * (w - side.g + side.dual).square().sum()).backward()
    expected, w.grad = w.grad, None
    w.sin().sum().backward()
    side.after_backward(w)
    torch.testing.assert_close(w.grad, expected)


def _solve(levels: str, target: Tensor) -> tuple[torch.nn.Module, Tensor]:
    """The nearest point to ``target`` in the set, by ADMM alone."""
    side = (
        load_quantizer("admm", levels=levels, rho_start=2.0, rho_end=2.0)
        .weight(tuple(target.shape))
        .double()
    )
    w = torch.nn.Parameter(target.clone())
    opt = Extragradient([w], lr=0.2)

    def closure():
        opt.zero_grad()
        loss = (w - target).square().sum() / 2
        loss.backward()
        side.after_backward(w)
        return loss

    for _ in range(60):
        side.epoch_start(w)
        for _ in range(20):
            opt.step(closure)
    side.epoch_start(w)
    return side, w.detach()


@pytest.mark.parametrize("levels", LEVELS)
def test_the_constraint_is_met_in_the_end(levels, weight):
    side, w = _solve(levels, weight)
    assert float(side.residual(w)) < 1e-3
    best = (project(weight, LEVELS[levels]) - weight).square().sum()
    assert float((side.g - weight).square().sum()) < 1.05 * float(best)


def test_projected_weights_stand_still(weight, upstream):
    side = load_quantizer("admm", projected=True).weight(tuple(weight.shape)).double()
    side.dual.copy_(upstream(weight))
    w = torch.nn.Parameter(weight.clone())
    side.epoch_start(w)
    g = project(weight + upstream(weight), (1,))
    torch.testing.assert_close(side(w), g)
    assert not side(w).requires_grad
    torch.testing.assert_close(side.eval()(w).detach(), g)


def test_learns_digits_with_binary_weights():
    pixels, target = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 8 - 1).float()[:512], torch.tensor(target)[:512]
    torch.manual_seed(0)
    spec = load_quantizer("admm")
    hidden = [spec.linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), spec.linear(64, 64)]
    net = torch.nn.Sequential(*hidden, torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    layers = [hidden[0], hidden[3]]
    opt = Extragradient(net.parameters(), lr=0.05)

    def closure():
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        for layer in layers:
            layer.weight_quantizer.after_backward(layer.weight)
        return loss.detach()

    def rounds(count: int) -> None:
        for epoch in range(count):
            set_progress(net, epoch, count)
            for layer in layers:
                layer.weight_quantizer.epoch_start(layer.weight)
            for _ in range(10):
                opt.step(closure)

    rounds(20)
    for layer in layers:
        layer.weight_quantizer.projected = True
    rounds(5)
    values = layers[0].weight_quantizer.eval()(layers[0].weight).unique()
    assert values.numel() == 2
    accuracy = (net.eval()(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.8, float(accuracy)


def test_state_survives_a_checkpoint(weight):
    trained, fresh = (load_quantizer("admm").weight(tuple(weight.shape)).double() for _ in "ab")
    for w in (weight, 0.5 * weight):
        trained.epoch_start(w)
    fresh.load_state_dict(trained.state_dict())
    for side in (trained, fresh):
        side.epoch_start(0.2 * weight)
    assert torch.equal(fresh.dual, trained.dual)
    assert fresh.dual.abs().sum() > 0


@pytest.mark.parametrize(("levels", "bits"), [("binary", 1), ("ternary", 2), ("four", 3)])
def test_bits(levels, bits):
    conv = load_quantizer("admm", levels=levels).conv2d(2, 2, 3)
    assert (conv.weight_quantizer.bits, conv.activation_quantizer.bits) == (bits, 32)


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_a_layer_in_evaluation_has_the_projected_weight(geometry, x):
    conv = load_quantizer("admm").conv2d(4, 6, 3, padding=1, **geometry).double().eval()
    plain = torch.nn.Conv2d(4, 6, 3, padding=1, **geometry).double()
    plain.load_state_dict({"weight": project(conv.weight, (1,)), "bias": conv.bias})
    torch.testing.assert_close(conv(x), plain(x))


@pytest.mark.parametrize("wrong", [{"levels": "octal"}, {"rho_start": 0}, {"rho_start": 20.0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match="quantizer: levels must be"):
        load_quantizer("admm", **wrong).weight((1, 1, 1, 1))
