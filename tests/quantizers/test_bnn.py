"""BNN: signs with the identity and the clipped straight-through estimator, latent clip."""

import torch

from bnnbench.config import load_quantizer


def test_weight_is_the_sign_with_the_gradient_of_the_identity(weight, gradient, upstream):
    side, g = load_quantizer("bnn").weight(tuple(weight.shape)), upstream(weight)
    value, grad = gradient(side, weight, g)
    assert torch.equal(value, torch.where(weight >= 0, 1.0, -1.0).double())
    assert torch.equal(grad, g)  # beyond [-1, 1] as well: the latent weight is clipped instead


def test_activation_gradient_is_clipped(x, gradient, upstream):
    side, g = load_quantizer("bnn").activation(4), upstream(x)
    value, grad = gradient(side, x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    torch.testing.assert_close(grad, torch.where(x.abs() < 1, g, 0.0))


def test_after_step_clips_the_latent_weight_in_place(weight):
    side = load_quantizer("bnn").weight(tuple(weight.shape))
    latent = torch.nn.Parameter(weight.clone())
    side.after_step(latent)
    assert torch.equal(latent.detach(), weight.clamp(-1, 1))
    assert (weight.abs() > 1).any()
    assert (latent.abs() < 1).any()


def test_scale_is_one_and_offset_zero(weight):
    parts = load_quantizer("bnn").weight(tuple(weight.shape)).decompose(weight)
    assert (parts.scale, parts.offset) == (1, 0)
