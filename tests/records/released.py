"""What authors' releases look like: names and shapes of their tensors, and their networks as maths.

Written from the repositories that the maps name, each network as plain functions of a state dict.
Random numbers stand in for weights, in double precision, so that no sign hangs on a rounding.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]
Layer = Callable[[State, str, Tensor, int], Tensor]


def random_state(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> State:
    """Random weights; variances, and tau of ReCU, are positive."""
    state = {}
    for name, shape in shapes:
        value = torch.randn(shape, dtype=torch.float64)
        positive = name.endswith(("running_var", "alpha_a", "tau"))
        state[name] = value.abs() / 4 + 0.5 if positive else value
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state


def norm_of(name: str, channels: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def resnet_shapes(
    widths: tuple[int, ...],
    depth: int,
    of_conv: Callable[[str, int], Shapes],
    of_act: Callable[[str, int], Shapes] = lambda name, channels: iter(()),
    shortcut: tuple[str, str] | None = None,
    classifier: str = "linear",
    kernel: int = 3,
) -> Shapes:
    """A ResNet of two convolutions a block; ``shortcut`` names its convolution and norm."""
    yield "conv1.weight", (widths[0], 3, kernel, kernel)
    yield from norm_of("bn1", widths[0])
    yield from of_act("nonlinear1", widths[0])
    before = widths[0]
    for stage, width in enumerate(widths, start=1):
        for block in range(depth):
            for number in (1, 2):
                place = f"layer{stage}.{block}."
                yield f"{place}conv{number}.weight", (width, before, 3, 3)
                yield from of_conv(f"{place}conv{number}", width)
                yield from norm_of(f"{place}bn{number}", width)
                yield from of_act(f"{place}nonlinear{number}", width)
                if number == 1 and before != width and shortcut:
                    yield f"{place}{shortcut[0]}.weight", (width, before, 1, 1)
                    yield from norm_of(f"{place}{shortcut[1]}", width)
                before = width
    yield from norm_of("bn2", widths[-1])
    yield f"{classifier}.weight", (10, widths[-1])
    yield f"{classifier}.bias", (10,)


def maxout_shapes(name: str, channels: int) -> Shapes:
    yield f"{name}.neg_scale", (channels,)
    yield f"{name}.pos_scale", (channels,)


def adabin_shapes(name: str, channels: int) -> Shapes:
    yield f"{name}.binary_a.alpha_a", ()
    yield f"{name}.binary_a.beta_a", ()


def recu_shapes(name: str, channels: int) -> Shapes:
    yield f"{name}.alpha", (channels, 1, 1)
    yield f"{name}.tau", (1,)


def block_per_conv_shapes(method: str, depth: int = 4) -> Shapes:
    """ReActNet's ResNet-18 and its kin: a block is one convolution."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm_of("bn1", 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(depth):
            place = f"layer{stage}.{block}."
            weight = (width, before, 3, 3)
            if method == "birealnet":
                yield f"{place}binary_conv.weights", (width * before * 9, 1)
            else:
                yield f"{place}binary_conv.weight", weight
                yield f"{place}move0.bias", (1, before, 1, 1)
                yield f"{place}move1.bias", (1, width, 1, 1)
                yield f"{place}prelu.weight", (width,)
                yield f"{place}move2.bias", (1, width, 1, 1)
            if method == "rebnn":
                yield f"{place}binary_conv.scaling_factor", (width, 1, 1, 1)
            if method == "rbonn":
                yield f"{place}binary_conv.scale_factor", (width, 1, 1, 1)
                yield f"{place}binary_conv.u", (width, 1, 1, 1)
            yield from norm_of(f"{place}bn1", width)
            if before != width:
                yield f"{place}downsample.1.weight", (width, before, 1, 1)
                yield from norm_of(f"{place}downsample.2", width)
            before = width
    yield "fc.weight", (10, 512)
    yield "fc.bias", (10,)


# Channels behind each block of ReActNet-A, a quarter of them, and those of its stem.
MOBILE = (8, 16, 32, 32, 64, 64, *(128,) * 6, 256, 256)


def mobile_shapes() -> Shapes:
    """ReActNet's MobileNet, of a quarter of its width."""
    yield "feature.0.conv1.weight", (MOBILE[0], 3, 3, 3)
    yield from norm_of("feature.0.bn1", MOBILE[0])
    for number, (before, width) in enumerate(itertools.pairwise(MOBILE), start=1):
        place = f"feature.{number}."
        yield f"{place}binary_3x3.weights", (before * before * 9, 1)
        for name in ("bn1", *(["bn2"] if before == width else ["bn2_1", "bn2_2"])):
            yield from norm_of(f"{place}{name}", before)
        for name in ("binary_pw",) if before == width else ("binary_pw_down1", "binary_pw_down2"):
            yield f"{place}{name}.weights", (before * before, 1)
        for name in ("move11", "move12", "move13", "move21"):
            yield f"{place}{name}.bias", (1, before, 1, 1)
        for name in ("move22", "move23"):
            yield f"{place}{name}.bias", (1, width, 1, 1)
        yield f"{place}prelu1.weight", (before,)
        yield f"{place}prelu2.weight", (width,)
    yield "fc.weight", (10, MOBILE[-1])
    yield "fc.bias", (10,)


def vgg_shapes(of_conv: Callable[[str, int], Shapes]) -> Shapes:
    before = 3
    for number, width in enumerate((128, 128, 256, 256, 512, 512)):
        yield f"conv{number}.weight", (width, before, 3, 3)
        if number:
            yield from of_conv(f"conv{number}", width)
        yield from norm_of(f"bn{number}", width)
        before = width
    yield "fc.weight", (10, 512 * 4 * 4)
    yield "fc.bias", (10,)


# The maths


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])


def per_filter(weight: Tensor, values: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (weight.dim() - 1))


def adabin(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    weight = state[f"{name}.weight"]
    center = per_filter(weight, weight.mean(dim=(1, 2, 3)))
    distance = per_filter(weight, (weight - center).square().mean(dim=(1, 2, 3)).sqrt())
    alpha, beta = state[f"{name}.binary_a.alpha_a"], state[f"{name}.binary_a.beta_a"]
    signs = alpha * (torch.sign((x - beta) / alpha) + beta)
    binary = torch.sign((weight - center) / distance) * distance + center
    return F.conv2d(signs, binary, stride=stride, padding=1)


def irnet(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    weight = state[f"{name}.weight"]
    flat = weight.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    flat = flat / flat.std(dim=1, keepdim=True)
    scale = 2 ** flat.abs().mean(dim=1).log2().round()
    binary = per_filter(weight, scale) * flat.view_as(weight).sign()
    return F.conv2d(x.sign(), binary, stride=stride, padding=1)


def recu(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    weight = state[f"{name}.weight"]
    binary = (weight - per_filter(weight, weight.mean(dim=(1, 2, 3)))).sign()
    return F.conv2d(x.sign(), binary, stride=stride, padding=1) * state[f"{name}.alpha"]


def hardtanh(state: State, name: str, x: Tensor) -> Tensor:
    return F.hardtanh(x)


def maxout(state: State, name: str, x: Tensor) -> Tensor:
    positive, negative = (state[f"{name}.{side}_scale"].view(-1, 1, 1) for side in ("pos", "neg"))
    return positive * F.relu(x) - negative * F.relu(-x)


def padded(state: State, place: str, x: Tensor, width: int) -> Tensor:
    """Option A: every second pixel, new channels are zero on both sides."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 4, width // 4))


def pooled_padded(state: State, place: str, x: Tensor, width: int) -> Tensor:
    """ReCU's."""
    return F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, width // 4, width // 4))


def projected(state: State, place: str, x: Tensor, width: int) -> Tensor:
    """A strided convolution of AdaBin's and IR-Net's ResNet-18."""
    name = "shortcut" if f"{place}shortcut.0.weight" in state else "downsample"
    out = F.conv2d(x, state[f"{place}{name}.0.weight"], stride=2)
    return norm(state, f"{place}{name}.1", out)


def pooled(state: State, place: str, x: Tensor, width: int) -> Tensor:
    """A convolution behind an average pool, of ReActNet and of AdaBin on ImageNet."""
    out = F.conv2d(F.avg_pool2d(x, 2), state[f"{place}downsample.1.weight"])
    return norm(state, f"{place}downsample.2", out)


def resnet(
    state: State,
    x: Tensor,
    conv: Layer,
    act: Callable[[State, str, Tensor], Tensor],
    shortcut: Callable[[State, str, Tensor, int], Tensor],
    classifier: str = "linear",
) -> Tensor:
    large = state["conv1.weight"].shape[-1] == 7
    stem = F.conv2d(x, state["conv1.weight"], stride=2 if large else 1, padding=3 if large else 1)
    x = act(state, "nonlinear1", norm(state, "bn1", stem))
    x = F.max_pool2d(x, 3, 2, 1) if large else x
    for stage in (1, 2, 3, 4):
        for block in range(3):
            place = f"layer{stage}.{block}."
            if f"{place}conv1.weight" not in state:
                continue
            width = len(state[f"{place}conv1.weight"])
            down = x.shape[1] != width
            around = shortcut(state, place, x, width) if down else x
            out = norm(state, f"{place}bn1", conv(state, f"{place}conv1", x, 1 + down))
            x = act(state, f"{place}nonlinear1", out + around)
            out = norm(state, f"{place}bn2", conv(state, f"{place}conv2", x, 1))
            x = act(state, f"{place}nonlinear2", out + x)
    features = norm(state, "bn2", x.mean(dim=(2, 3)))
    return F.linear(features, state[f"{classifier}.weight"], state[f"{classifier}.bias"])


def block_per_conv(state: State, x: Tensor, method: str) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(state, "bn1", x), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        for block in range(4):
            place = f"layer{stage}.{block}."
            width = len(state[f"{place}bn1.weight"])
            down = x.shape[1] != width
            around = pooled(state, place, x, width) if down else x
            moved = x + state[f"{place}move0.bias"] if method != "birealnet" else x
            weight = _block_weight(state, place, method, (width, x.shape[1], 3, 3))
            out = F.conv2d(moved.sign(), weight, stride=1 + down, padding=1)
            x = norm(state, f"{place}bn1", out) + around
            if method != "birealnet":
                x = F.prelu(x + state[f"{place}move1.bias"], state[f"{place}prelu.weight"])
                x = x + state[f"{place}move2.bias"]
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def _block_weight(
    state: State, place: str, method: str, shape: tuple[int, int, int, int]
) -> Tensor:
    name = "weights" if method == "birealnet" else "weight"
    weight = state[f"{place}binary_conv.{name}"].view(shape)
    if method in ("rebnn", "rbonn"):
        key = {"rebnn": "scaling_factor", "rbonn": "scale_factor"}[method]
        return 0.02 * weight.sign() * state[f"{place}binary_conv.{key}"].abs()
    return weight.sign() * per_filter(weight, weight.abs().mean(dim=(1, 2, 3)))


def mobile(state: State, x: Tensor, stride: int = 2) -> Tensor:
    """ReActNet's MobileNet, two 1x1 convolutions over one binarized map where it doubles."""
    x = F.conv2d(x, state["feature.0.conv1.weight"], stride=stride, padding=1)
    x = norm(state, "feature.0.bn1", x)
    for number, (before, width) in enumerate(itertools.pairwise(MOBILE), start=1):
        place = f"feature.{number}."
        halves = before != width and number > 1
        signs = (x + state[f"{place}move11.bias"]).sign()
        out = norm(state, f"{place}bn1", _column(state, f"{place}binary_3x3", signs, 3, 1 + halves))
        x = _rprelu(state, place, 1, out + (F.avg_pool2d(x, 2) if halves else x))
        signs = (x + state[f"{place}move21.bias"]).sign()
        if before == width:
            x = norm(state, f"{place}bn2", _column(state, f"{place}binary_pw", signs)) + x
        else:
            two = (_column(state, f"{place}binary_pw_down{n}", signs) for n in (1, 2))
            x = torch.cat(
                [norm(state, f"{place}bn2_{n}", out) + x for n, out in enumerate(two, start=1)], 1
            )
        x = _rprelu(state, place, 2, x)
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def _column(state: State, name: str, x: Tensor, kernel: int = 1, stride: int = 1) -> Tensor:
    """A binary convolution that keeps the width, whose weight is a column of numbers."""
    weight = state[f"{name}.weights"].view(x.shape[1], x.shape[1], kernel, kernel)
    binary = weight.sign() * per_filter(weight, weight.abs().mean(dim=(1, 2, 3)))
    return F.conv2d(x, binary, stride=stride, padding=kernel // 2)


def _rprelu(state: State, place: str, number: int, x: Tensor) -> Tensor:
    x = F.prelu(x + state[f"{place}move{number}2.bias"], state[f"{place}prelu{number}.weight"])
    return x + state[f"{place}move{number}3.bias"]


def vgg(state: State, x: Tensor, conv: Layer) -> Tensor:
    for number in range(6):
        name = f"conv{number}"
        stem = number == 0
        x = F.conv2d(x, state["conv0.weight"], padding=1) if stem else conv(state, name, x, 1)
        x = F.max_pool2d(x, 2) if number % 2 else x
        x = F.hardtanh(norm(state, f"bn{number}", x))
    return F.linear(x.flatten(1), state["fc.weight"], state["fc.bias"])
