"""Real-to-Binary: the gate, the half-block, and the four stages."""

from collections.abc import Callable

import pytest
import torch
from numpy.testing import assert_allclose
from omegaconf import DictConfig
from torch import nn

from bnnbench import build_backbone, load_quantizer
from bnnbench.backbones.blocks import PreActivationBlock
from bnnbench.layers import binary_layers
from bnnbench.metrics import count_operations
from bnnbench.runs.build import build_task
from bnnbench.runs.preflight import preflight
from bnnbench.runs.stages import stages


@pytest.mark.parametrize("reduction", [1, 2, 8])
def test_the_gate_written_out(reduction, x):
    layer = load_quantizer("r2b", reduction=reduction).conv2d(4, 6, 3, padding=1, bias=False)
    layer = layer.double()
    down, up = layer.output.squeeze.weight, layer.output.excite.weight
    assert down.shape == (max(4 // reduction, 1), 4)
    pooled = x.numpy().mean(axis=(2, 3))
    hidden = (pooled @ down.detach().numpy().T).clip(min=0)
    gate = 1 / (1 + torch.tensor(hidden @ up.detach().numpy().T).neg().exp().numpy())
    signs = [torch.where(t >= 0, 1.0, -1.0).double() for t in (x, layer.weight.detach())]
    plain = nn.functional.conv2d(*signs, padding=1).numpy()
    assert_allclose(layer(x).detach(), plain * gate[:, :, None, None], rtol=1e-9)


def test_the_gate_sees_the_real_input_and_gradients_reach_it_there(x):
    layer = load_quantizer("r2b", reduction=1).conv2d(4, 6, 3, padding=1, bias=False).double()
    far = (3 + x.abs()).requires_grad_()  # where the sign passes nothing
    layer(far).square().sum().backward()
    assert far.grad is not None
    assert far.grad.abs().max() > 0
    # a factor of the pooled input: the same for all positions of a channel
    assert_allclose(far.grad, far.grad[:, :, :1, :1].expand_as(far), rtol=1e-9)


def test_the_gate_is_counted_in_full_precision():
    gated = count_operations(build_backbone("resnet20", "r2b"), (3, 32, 32))
    plain = count_operations(
        build_backbone("resnet20", load_quantizer("r2b", output=None)), (3, 32, 32)
    )
    widths = [16] * 6 + [16] + [32] * 5 + [32] + [64] * 5
    outs = [16] * 6 + [32] * 6 + [64] * 6
    expected = sum(i * (i // 8) + (i // 8) * o for i, o in zip(widths, outs, strict=True))
    assert gated.fp_macs - plain.fp_macs == expected
    assert gated.params - plain.params == expected


def test_resnets_have_half_blocks_that_add_nothing_to_what_passes_by():
    net = build_backbone("resnet20", "r2b")
    blocks = [block for stage in net.stages for block in stage]
    assert all(isinstance(block, PreActivationBlock) for block in blocks)
    assert net.structure.as_dict()["block"] == "pre_activation"
    assert "block" not in build_backbone("resnet20", "bnn").structure.as_dict()
    block, x = blocks[0], torch.randn(2, 16, 8, 8)
    for conv in (block.conv1, block.conv2):
        conv.output = None
        conv.weight_quantizer = nn.Identity()
        nn.init.zeros_(conv.weight)
    assert torch.equal(block(x), x)


def test_four_stages_each_learn_from_the_one_before(compose: Callable[..., DictConfig]):
    cfg = compose("quantizer=r2b", "recipe=native", "backbone=resnet20", "trainer.max_epochs=8")
    preflight([cfg])
    found = []
    for stage in stages(cfg):
        teacher = stage.cfg.teacher
        settings = (stage.continues, stage.cfg.loss.name, teacher.get("stage"))
        found.append((stage.name, stage.cfg.trainer.max_epochs, *settings))
    assert found == [
        ("full", 8, False, "task", None),
        ("tanh", 6, False, "attention", "full"),
        ("activations", 6, True, "attention", "tanh"),
        ("both", 6, True, "kd", "activations"),
    ]
    last = stages(cfg)[-1].cfg
    assert (last.loss.task_weight, last.loss["lambda"], last.loss.temperature) == (1.0, 0.8, 1.0)
    rates = [(s.cfg.recipe.lr, s.cfg.recipe.weight_decay) for s in stages(cfg)]
    assert rates == [(0.1, 0.0), (1e-3, 1e-5), (1e-3, 1e-5), (2e-4, 0.0)]


def test_real_weights_and_tanh_come_first(compose: Callable[..., DictConfig], x):
    cfg = compose("quantizer=r2b", "recipe=native", "backbone=resnet20")
    bits = []
    for stage in stages(cfg):
        staged = stage.cfg.copy()
        staged.teacher, staged.loss = {"name": "none"}, {"name": "task", "terms": {}}
        _, layer = next(binary_layers(build_task(staged).net))
        bits.append((layer.weight_quantizer.bits, layer.activation_quantizer.bits))
        if stage.name == "tanh":
            assert torch.equal(layer.activation_quantizer(x), torch.tanh(x))
    assert bits == [(32, 32), (32, 32), (32, 1), (1, 1)]


def test_reduction_below_1_is_refused():
    with pytest.raises(ValueError, match="reduction=0 must be 1 or more"):
        load_quantizer("r2b", reduction=0).conv2d(2, 2, 3)
