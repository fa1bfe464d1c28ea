"""RAD: BinaryNet's sides, without a scale."""

from __future__ import annotations

import torch

from bnnbench.config import build_backbone, load_quantizer


def test_signs_with_binarynets_gradients(weight, x, gradient, upstream):
    spec = load_quantizer("rad")
    for side, value, gate in (
        (spec.weight(tuple(weight.shape)), weight, torch.ones_like(weight)),
        (spec.activation(4), x, (x.abs() < 1).double()),
    ):
        g = upstream(value)
        code, grad = gradient(side, value, g)
        assert torch.equal(code, torch.where(value >= 0, 1.0, -1.0).double())
        torch.testing.assert_close(grad, g * gate)
        parts = side.decompose(value)
        assert (parts.scale, parts.offset) == (1, 0)


def test_latent_weights_are_clipped(weight):
    latent = torch.nn.Parameter(weight.clone())
    load_quantizer("rad").weight(tuple(weight.shape)).after_step(latent)
    assert torch.equal(latent.detach(), weight.clamp(-1, 1))


def test_a_hardtanh_stands_before_every_sign():
    structure = build_backbone("resnet20", "rad").structure
    assert (structure.nonlinearity, structure.shortcut) == ("hardtanh", "block")
