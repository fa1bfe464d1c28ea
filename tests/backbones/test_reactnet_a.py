"""ReActNet's own network: the paper's counts, its authors' function, its form for small images."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.backbones.reactnet_a import ReActNetA
from bnnbench.config import build_backbone
from bnnbench.layers import binary_layers
from bnnbench.metrics import count_operations


def test_counts_are_the_papers():
    """Table 3 of arXiv 2003.03488: 4.82e9 binary operations, 0.12e8 others, 0.87e8 in all."""
    with torch.device("meta"):
        net = build_backbone("reactnet_a", "reactnet", num_classes=1000, image_size=224)
    cost = count_operations(net.to_empty(device="cpu"), (3, 224, 224))
    assert f"{cost.binary_macs:.2e}" == "4.82e+09"
    assert f"{cost.fp_macs / 1e8:.2f}" == "0.12"
    assert f"{cost.ops / 1e8:.2f}" == "0.87"
    # weights: stem, blocks of 9 i^2 + i o, classifier; then norms, thresholds and RPReLUs
    widths = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    pairs = list(itertools.pairwise(widths))
    weights = 32 * 27 + sum(9 * i * i + i * o for i, o in pairs) + 1025 * 1000
    per_channel = 2 * 32 + sum(7 * i + 5 * o for i, o in pairs)
    assert cost.params == weights + per_channel == 29_343_592


def _authors(net: ReActNetA, x: Tensor) -> Tensor:
    """Their class in training, written out: two 1x1 convolutions where the width doubles."""
    own = net.state_dict()

    def norm(name: str, x: Tensor, part: slice = slice(None)) -> Tensor:
        scale, shift = own[f"{name}.weight"][part], own[f"{name}.bias"][part]
        return F.batch_norm(x, None, None, scale, shift, training=True)

    def binary(name: str, x: Tensor, stride: int = 1, part: slice = slice(None)) -> Tensor:
        weight = own[f"{name}.weight"][part]
        scale = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        signs = (x - own[f"{name}.activation_quantizer.threshold"].view(-1, 1, 1)).sign()
        return F.conv2d(signs, scale * weight.sign(), None, stride, weight.shape[-1] // 2)

    def rprelu(name: str, x: Tensor) -> Tensor:
        shifts = (own[f"{name}.shift_{end}"].view(-1, 1, 1) for end in ("in", "out"))
        return F.prelu(x - next(shifts), own[f"{name}.slope"]) + next(shifts)

    x = norm("bn1", F.conv2d(x, own["conv1.weight"], None, 1, 1))
    for index, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)):
        place = f"blocks.{index}."
        around = F.avg_pool2d(x, 2) if stride == 2 else x
        x = rprelu(f"{place}act1", norm(f"{place}bn1", binary(f"{place}conv1", x, stride)) + around)
        width, doubled = x.shape[1], len(own[f"{place}bn2.weight"]) > x.shape[1]
        parts = (slice(width), slice(width, None)) if doubled else (slice(None),)
        halves = [
            norm(f"{place}bn2", binary(f"{place}conv2", x, 1, part), part) + x for part in parts
        ]
        x = rprelu(f"{place}act2", torch.cat(halves, dim=1))
    return F.linear(x.mean(dim=(2, 3)), own["fc.weight"], own["fc.bias"])


def test_small_images_meet_the_authors_blocks_behind_a_stem_of_stride_one():
    torch.manual_seed(0)
    net = build_backbone("reactnet_a", "reactnet", image_size=32, width=0.25).double()
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0 if "bn" in name else 0.0, 0.3)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert net.forward_features(x).shape == (4, 256, 2, 2)
    torch.testing.assert_close(net(x), _authors(net, x))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("size", "side"), [(8, 1), (28, 2), (48, 3), (49, 2), (64, 2), (224, 7)])
def test_the_stem_halves_images_of_more_than_48_pixels(size, side):
    net = build_backbone("reactnet_a", "xnor", image_size=size, width=1 / 32).eval()
    assert net.forward_features(torch.zeros(1, 3, size, size)).shape == (1, 32, side, side)


@pytest.mark.parametrize("width", [0, -1.0, 0.01, 0.3])
def test_widths_that_leave_parts_of_channels_are_refused(width):
    with pytest.raises(ValueError, match=f"^backbone.width={width}: the stem's 32 channels"):
        build_backbone("reactnet_a", "xnor", width=width)


def test_every_method_s_own_nonlinearity_stands_behind_every_sum_and_none_behind_the_stem():
    net = build_backbone("reactnet_a", "adabin", width=0.25)
    kinds = [type(m).__name__ for n, m in net.named_modules() if n.split(".")[-1].startswith("act")]
    assert (kinds.count("Maxout"), kinds.count("Identity")) == (26, 1)
    assert len(list(binary_layers(net))) == 26
    same = build_backbone("reactnet_a", "adabin", width=0.25, stem_nonlinearity="same")
    assert type(same.act1).__name__ == "Maxout"
