"""Networks as training leaves them: statistics, scales and thresholds that are all something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bnnbench

MOVED = ("shift", "threshold", "slope", "activation_quantizer", "positive", "negative")


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """``network("adabin", backbone="resnet20", image_size=16, **options of the backbone)``."""

    def build(method: str, backbone: str = "resnet20", **options: Any) -> nn.Module:
        torch.manual_seed(1)
        size = options.setdefault("image_size", 16)
        own = {key: options.pop(key) for key in list(options) if key.startswith("q_")}
        spec = bnnbench.load_quantizer(method, **{k[2:]: v for k, v in own.items()})
        net = bnnbench.build_backbone(backbone, quantizer=spec, num_classes=10, **options)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.5)
                module.weight.data[::5] *= -1
                module.bias.data.normal_(0, 0.3)
                module.momentum = None
        for name, parameter in net.named_parameters():
            if any(word in name for word in MOVED):
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        with torch.no_grad():
            net.train()(torch.randn(16, 3, size, size))
        return net.eval()

    return build
