"""Every parameter has one role."""

import pytest
import torch
from torch import nn

import bnnbench
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.optim.roles import parameters_by_role
from bnnbench.tasks.classification import Classification


def roles(quantizer: str, backbone: str = "wrn22") -> dict[str, list[nn.Parameter]]:
    net = bnnbench.build_backbone(backbone, quantizer=quantizer, image_size=8)
    task = Classification(
        net, task_loss("classification"), Recipe("sgd", 0.1, schedule="cosine"), 10
    )
    return parameters_by_role(task)


@pytest.mark.parametrize("quantizer", ["fp32", "bonn", "adabin", "reactnet"])
def test_each_parameter_once(quantizer: str) -> None:
    net = bnnbench.build_backbone("wrn22", quantizer=quantizer, image_size=8)
    task = Classification(
        net, task_loss("classification"), Recipe("sgd", 0.1, schedule="cosine"), 10
    )
    found = [p for own in parameters_by_role(task).values() for p in own]
    assert len(found) == len(set(found)) == len(list(task.parameters()))


def test_bonn_in_a_wide_resnet() -> None:
    found = roles("bonn")
    assert {role: len(own) for role, own in found.items()} == {
        "latent": 18,  # 3x3 convolutions of nine blocks
        "scale": 18,  # w of each
        "norm": 2 * (18 + 1 + 2),  # two a block, the last one, two in 1x1 shortcuts
        "other": 1 + 2 + 2 + 18 + 1,  # stem, 1x1 shortcuts, classifier, PReLU slopes
    }
    assert all(w.shape == (1, 1, 3, 3) for w in found["scale"])


def test_full_precision_has_no_latent_weights() -> None:
    assert set(roles("fp32")) == {"norm", "other"}


def test_what_a_loss_learns_is_trained_too() -> None:
    net = bnnbench.build_backbone("resnet20", quantizer="xnor", image_size=8)
    loss = nn.Module()
    loss.scale = nn.Parameter(torch.zeros(10))
    task = Classification(net, loss, Recipe("sgd", 0.1, schedule="cosine"), 10)
    assert any(parameter is loss.scale for parameter in parameters_by_role(task)["other"])
