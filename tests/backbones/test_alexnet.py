"""AlexNet: larq's count of it, XNOR-Net's Lua order written out, small images."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.backbones.alexnet import AlexNet
from bnnbench.config import build_backbone
from bnnbench.metrics import count_operations

NORMS = 2 * 96 + 256 + 384 + 384 + 256 + 4096 + 4096  # channels of all norms


def test_parameters_are_those_of_larqs_zoo():
    """62,396,768 there: its norms have three numbers a channel, its classifier no bias."""
    with torch.device("meta"):
        net = build_backbone("alexnet", "xnor", num_classes=1000, image_size=224)
    cost = count_operations(net.to_empty(device="cpu"), (3, 224, 224))
    assert cost.params - 2 * NORMS - 1000 == 62_396_768 - 3 * NORMS
    convolutions = {55: 3 * 96 * 121, 27: 96 * 256 * 25, 13: 384 * 9 * (256 + 384 + 256)}
    macs = sum(side * side * weights for side, weights in convolutions.items())
    assert cost.fp_macs + cost.binary_macs == macs + 4096 * (256 * 36 + 4096 + 1000)


def _lua(net: AlexNet, x: Tensor, small: bool) -> Tensor:
    """Norm - sign - convolution - pool, the fully connected layers as linear ones."""
    own = net.state_dict()

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = own[f"{name}.running_mean"], own[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, own[f"{name}.weight"], own[f"{name}.bias"])

    def weight(name: str) -> Tensor:
        centred = own[f"{name}.weight"]
        if centred.shape[1] > 1:
            centred = centred - centred.mean(dim=1, keepdim=True)
        return centred.sign() * centred.clamp(-1, 1).abs().mean(dim=(1, 2, 3), keepdim=True)

    stem = (1, 1) if small else (4, 2)
    x = F.relu(norm("stem.0", F.conv2d(x, own["conv1.weight"], None, *stem)))
    x = F.max_pool2d(x, 3, 2)
    for number, pad in ((2, 2), (3, 1), (4, 1), (5, 1)):
        signs = norm(f"features.bn{number}", x).sign()
        x = F.conv2d(signs, weight(f"features.conv{number}"), None, 1, pad)
        x = F.max_pool2d(x, 3, 2) if number in (2, 5) else x
    for number in (6, 7):
        signs = norm(f"hidden.bn{number}", x).sign()
        x = F.linear(signs.flatten(1), weight(f"hidden.conv{number}").flatten(1))
        x = x.view(*x.shape, 1, 1)
    x = F.hardtanh(norm("hidden.bn8", x)).flatten(1)
    return F.linear(x, own["fc.weight"], own["fc.bias"])


@pytest.mark.parametrize("size", [95, 31])
def test_layers_are_in_the_order_of_xnor_net(size):
    """Of these sizes no pool has anything left over, as of 224 pixels."""
    torch.manual_seed(0)
    net = build_backbone("alexnet", "xnor", image_size=size).double()
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1 and "bias" in name:
            torch.nn.init.normal_(parameter)  # no sum of signs lies on a threshold
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        net(x)
        net.eval()
        torch.testing.assert_close(net(x), _lua(net, x, size < 49))  # pyright: ignore


@pytest.mark.parametrize(
    ("size", "side"), [(8, 1), (28, 3), (32, 4), (48, 6), (49, 1), (64, 1), (96, 2)]
)
def test_small_images_keep_their_size_behind_the_stem(size, side):
    net = build_backbone("alexnet", "bnn", image_size=size).eval()
    x = torch.zeros(1, 3, size, size)
    assert net.forward_features(x).shape == (1, 256, side, side)
    assert net(x).shape == (1, 10)
