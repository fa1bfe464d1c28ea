"""Zhuang et al.: the quantizer's gradient, the hint loss, and the stages."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from omegaconf import DictConfig

from bnnbench.config import load_quantizer
from bnnbench.layers import binary_layers
from bnnbench.losses.distillation import Hints, hint_loss
from bnnbench.runs.build import build_task
from bnnbench.runs.preflight import preflight
from bnnbench.runs.stages import stages
from bnnbench.runs.teacher import JointTeacher, build_teacher


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_hold_the_largest_tanh_constant(bits, weight, gradient, upstream):
    side, g = (
        load_quantizer("zhuang", weight_bits=bits).weight(tuple(weight.shape)),
        upstream(weight),
    )
    value, grad = gradient(side, weight, g)
    tanh, levels = np.tanh(weight.numpy()), 2**bits - 1
    largest = np.abs(tanh).max()
    unit = tanh / (2 * largest) + 0.5
    assert_allclose(value, 2 * np.round(unit * levels) / levels - 1, atol=1e-12)
    assert_allclose(grad, g.numpy() * (1 - tanh**2) / largest, rtol=1e-9, atol=1e-12)


def test_hint_loss(gradient, upstream):
    s = torch.tensor([[-0.3, 0.2, 0.55, 1.7]], dtype=torch.float64)
    t = torch.tensor([[0.4, 0.9, 0.1, 0.8]], dtype=torch.float64)
    q = lambda x: np.round(np.clip(x.numpy(), 0, 1) * 3) / 3  # noqa: E731
    expected = (np.abs(q(s) - q(t)).mean() + np.abs(q(t) - q(s)).mean()) / 2
    assert float(hint_loss([s, t], [t, s], bits=2)) == pytest.approx(expected)
    one = torch.tensor(1.0, dtype=torch.float64)
    _, grad = gradient(lambda s: hint_loss([s], [t], bits=2), s, one)
    # outside the clip nothing comes back
    assert_allclose(grad, [[0.0, -0.25, 0.25, 0.0]])
    _, theirs = gradient(lambda t: hint_loss([s], [t], bits=32), t, one)
    assert_allclose(theirs, np.sign(t.numpy() - s.numpy()) / 4)


def test_weights_come_before_activations_and_more_bits_before_fewer(
    compose: Callable[..., DictConfig],
):
    cfg = compose("quantizer=zhuang", "recipe=native", "backbone=resnet20")
    found, teachers = [], []
    earlier: dict[str, DictConfig] = {}
    for stage in stages(cfg):
        teacher = build_teacher(stage.cfg, earlier, untrained=True)
        task = build_task(stage.cfg, teacher=teacher)
        _, layer = next(binary_layers(task.net))
        found.append((layer.weight_quantizer.bits, layer.activation_quantizer.bits))
        teachers.append(type(teacher))
        earlier[str(stage.name)] = stage.cfg
        if teacher is not None:
            (hints,) = (term for term in task.regularizers if isinstance(term, Hints))
            assert hints.bits == found[-1][1]
            assert stage.cfg.teacher.stage == "full"
    assert found == [(32, 32), (4, 32), (4, 4), (2, 4), (2, 2)]
    assert teachers == [type(None), *[JointTeacher] * 4]


@pytest.mark.parametrize("backbone", ["resnet20", "vgg_small", "wrn22"])
def test_hints_of_every_network_with_stages(compose: Callable[..., DictConfig], backbone: str):
    preflight([compose("quantizer=zhuang", "loss=hints", "teacher=joint", f"backbone={backbone}")])


def test_a_network_without_stages_is_refused(compose: Callable[..., DictConfig]):
    timm = ["backbone=timm", "backbone.name=resnet10t"]
    with pytest.raises(ValueError, match="has no stages to compare"):
        preflight([compose("quantizer=birealnet", "loss=hints", "teacher=joint", *timm)])
