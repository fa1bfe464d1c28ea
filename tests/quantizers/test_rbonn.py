"""RBONN: learned scales, the bilinear constraint in the backward, backtracked filters."""

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor, nn

from bnnbench.callbacks.progress import QuantizerProgress
from bnnbench.config import load_quantizer
from bnnbench.quantizers.reactnet import RSign

AXES = (1, 2, 3)
ALPHA = torch.tensor([0.9, -0.1, 0.5, -0.7, 0.2, 1.3], dtype=torch.float64).view(6, 1, 1, 1)
CHOSEN = [0, 1, 0, 0, 1, 0]  # int(6 * 0.4) = 2 filters with the smallest |alpha|


def _side(weight: Tensor, previous: Tensor | None = None) -> nn.Module:
    side = load_quantizer("rbonn").weight(tuple(weight.shape)).double()
    side.alpha.data = ALPHA.clone()
    side.u.data = torch.linspace(0.1, 0.6, 6).view(6, 1, 1, 1).double()
    if previous is not None:
        side.previous.copy_(previous)
    return side


def _closed_form(w: np.ndarray, g: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, ...]:
    """Value and gradients to w and |alpha|, alpha of shape (O, 1, 1, 1)."""
    s = np.where(w >= 0, 1, -1)
    value = 0.02 * alpha * s
    to_w = 1e-4 * (w - value) + g * alpha
    to_alpha = (g * w - 1e-4 * (w - value) * 0.02 * s).sum(axis=AXES, keepdims=True)
    return value, to_w, to_alpha


@pytest.mark.parametrize("training", [True, False])
def test_weight(training, weight, gradient, upstream):
    previous, g = 3 * upstream(weight).flip(0), upstream(weight)
    side = _side(weight, previous).train(training)
    value, grad = gradient(side, weight, g)
    chosen = np.array(CHOSEN).reshape(6, 1, 1, 1) * training
    u = side.u.detach().numpy()
    latent = weight.numpy() - u * chosen * previous.numpy()
    expected = _closed_form(latent, g.numpy(), np.abs(ALPHA.numpy()))
    assert (np.sign(latent) != np.sign(weight.numpy())).any() == training  # signs are backtracked
    assert_allclose(value, expected[0], rtol=1e-13)
    assert_allclose(grad, expected[1], rtol=1e-10)
    assert_allclose(side.alpha.grad, np.sign(ALPHA) * expected[2], rtol=1e-9)
    if training:
        to_u = -(expected[1] * previous.numpy() * chosen).sum(axis=AXES, keepdims=True)
        assert_allclose(side.u.grad, to_u, rtol=1e-9)
    else:
        assert side.u.grad is None


def test_the_term_is_the_gradient_of_the_bilinear_constraint(weight, gradient):
    side = _side(weight)
    _, grad = gradient(side, weight, torch.zeros_like(weight))
    w, alpha = weight.clone().requires_grad_(), ALPHA.clone().requires_grad_()
    signs = torch.where(weight >= 0, 1.0, -1.0)
    (1e-4 / 2 * (w - 0.02 * alpha.abs() * signs).square().sum()).backward()
    torch.testing.assert_close(grad, w.grad)
    torch.testing.assert_close(side.alpha.grad, alpha.grad)


@pytest.mark.parametrize(("threshold", "filters"), [(0.0, 6), (0.6, 2), (0.9, 0), (1.0, 0)])
def test_the_smallest_scales_are_backtracked(threshold, filters, weight):
    side = load_quantizer("rbonn", threshold=threshold).weight(tuple(weight.shape)).double()
    side.alpha.data = ALPHA.clone()
    side.previous.copy_(1e3 * weight)  # flips every sign of a backtracked filter
    flipped = (side(weight) * weight < 0).flatten(1).any(dim=1)
    smallest = ALPHA.abs().flatten() <= sorted(ALPHA.abs().flatten())[max(filters - 1, 0)]
    assert torch.equal(flipped, smallest & (filters > 0))


def test_a_step_leaves_its_gradient(weight):
    side, latent = _side(weight), nn.Parameter(weight)
    side.after_step(latent)
    assert not side.previous.any()  # no gradient yet
    latent.grad = 2 * weight
    side.after_step(latent)
    assert torch.equal(side.previous, 2 * weight)


def test_the_trainer_still_has_the_gradient_after_a_step(x):
    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.conv = load_quantizer("rbonn").conv2d(4, 6, 3)

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.conv(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")}
    module, options = Module(), {"logger": False, "accelerator": "cpu", "max_epochs": 1, **quiet}
    trainer = L.Trainer(callbacks=[QuantizerProgress()], **options)
    trainer.fit(module, torch.utils.data.DataLoader(x.float(), batch_size=3))
    assert module.conv.weight.grad is not None
    assert torch.equal(module.conv.weight_quantizer.previous, module.conv.weight.grad)
    assert module.conv.weight.grad.abs().sum() > 0


def test_activation_is_reactnets():
    assert type(load_quantizer("rbonn").activation(4)) is RSign


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("rbonn").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w, alpha = conv.weight.detach().numpy(), conv.weight_quantizer.alpha.detach().numpy()
    values = [torch.where(x >= 0, 1.0, -1.0).double()]
    values += [torch.tensor(_closed_form(w, w, np.abs(alpha))[0])]
    values = [value.requires_grad_() for value in values]
    expected = F.conv2d(*values, None, **options)
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(leaf.grad, values[0].grad * (2 - 2 * x.abs()).clamp(min=0))
    to_w = _closed_form(w, values[1].grad.numpy(), np.abs(alpha))[1]
    assert_allclose(conv.weight.grad, to_w, rtol=1e-9)


def test_state_survives_a_state_dict(weight):
    net, fresh = (nn.ModuleList([_side(weight)]) for _ in range(2))
    net[0].previous.copy_(weight)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh[0].previous, weight)


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("rbonn").conv2d(4, 6, 3).double().eval()
    conv.weight_quantizer.previous.fill_(1.0)
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)


def test_impossible_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"quantizer\.threshold=1\.5"):
        load_quantizer("rbonn", threshold=1.5).weight((1, 1, 1, 1))
