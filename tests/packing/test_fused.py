"""The steps of a packed network against its operations one by one, over the suite's structures.

Behind one activation that crosses its threshold everything differs. So each step is compared with
the same operations of the very inputs that it got, in the course of one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnnbench.packing.document import packed
from bnnbench.runtime import build, report
from bnnbench.runtime.check import check_images, flat
from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.grouping import Group
from bnnbench.runtime.kernel import Kernel
from bnnbench.runtime.operation import PACKED, filled
from bnnbench.runtime.ops import OPS
from bnnbench.runtime.selftest import on

CLOSE = 1e-5  # of the largest value of a map
K, REFERENCE = {"q_input_scale": True}, {"q_activation_center": "reference"}
# Each kind of work on ResNet-20, then each structure.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "xnor": ("xnor", {}),
    "xnor K": ("xnor", K),
    "birealnet": ("birealnet", {}),
    "reactnet": ("reactnet", {}),
    "adabin": ("adabin", {}),
    "adabin reference": ("adabin", REFERENCE),
    "bonn": ("bonn", {}),
    "irnet": ("irnet", {}),
    "recu": ("recu", {}),
    "codes 0 and 1": ("dorefa", {}),
    "conv hardtanh": (
        "xnor",
        {"nonlinearity": "hardtanh", "shortcut": "conv", "downsample": "conv"},
    ),
    "block identity": ("adabin", {"nonlinearity": "identity", "shortcut": "block"}),
    "block rprelu": (
        "birealnet",
        {"nonlinearity": "rprelu", "shortcut": "block", "padding_value": -1},
    ),
    "block maxout": (
        "reactnet",
        {"nonlinearity": "maxout", "shortcut": "block", "downsample": "avgpool_pad"},
    ),
    "conv quantized": (
        "adabin",
        {"nonlinearity": "quantized_rprelu", "downsample": "avgpool_conv"},
    ),
    "binary ends": ("xnor", {"first": "binary", "last": "binary", "downsample": "binary_conv"}),
    "odd image": ("adabin", {"image_size": 17, "padding_value": 1}),
    "resnet18": ("adabin", {"backbone": "resnet18", "image_size": 64}),
    "one pixel": ("birealnet", {"backbone": "resnet18", "image_size": 8}),
    "vgg": ("xnor", {"backbone": "vgg_small"}),
    "vgg maxout": ("adabin", {"backbone": "vgg_small"}),
    "wrn": ("bonn", {"backbone": "wrn22"}),
    "wrn block": (
        "reactnet",
        {"backbone": "wrn22", "shortcut": "block", "nonlinearity": "hardtanh"},
    ),
    "ssd": ("adabin", {"backbone": "ssd300_resnet18", "image_size": 96}),
    "ssd vgg": ("xnor", {"backbone": "ssd300_vgg16", "image_size": 96}),
}


@pytest.fixture
def made(network: Callable[..., nn.Module]) -> Callable[[str], PackedNetwork]:
    """``made("adabin")``: a packed network, not yet compared with anything."""

    def build(name: str) -> PackedNetwork:
        method, options = NETWORKS[name]
        size = options.get("image_size", 16)
        return built(*packed(network(method, **options), (3, size, size)), name)

    return build


def layers(net: PackedNetwork) -> list[PackedConv2d]:
    """Every 1-bit layer, those inside linear ones as well."""
    return [module for module in net.modules() if isinstance(module, PackedConv2d)]


def place(net: PackedNetwork, kernel: Kernel | None, stem: Kernel | None = None) -> None:
    """Put all of a network on one path, and the float convolution in front on another."""
    for layer in layers(net):
        on(kernel, layer)
    for step in net.plan.steps:
        if step.group.stem is not None:
            on(stem, step.group.stem)


def one_by_one(net: PackedNetwork, group: Group, values: list[Any]) -> Any:
    """What the operations of a group give of the results and codes there are."""
    known = dict(enumerate(values))
    for number in group.numbers:
        operation = net.plan.operations[number]
        if operation.op in PACKED:
            codes = known[net.plan.count + number]
            layer = net.layers[str(number)]
            known[number] = layer(known[operation.args[0].number] if codes is None else codes)
            continue
        args, kwargs = (
            filled(part, known, net.constants.number)  # pyright: ignore
            for part in (operation.args, [*operation.kwargs.values()])
        )
        given = dict(zip(operation.kwargs, kwargs, strict=True))
        known[number] = OPS[operation.op](*args, **given)
    return known[group.numbers[-1]]


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_is_its_operations(name: str, made) -> None:
    net = made(name)
    place(net, None)
    x = check_images(net.image, 2)
    values: list[Any] = [None] * net.plan.room
    values[0] = x
    for step in net.plan.steps:
        before = list(values)
        step.run(values)
        expected, group = one_by_one(net, step.group, before), step.group
        if not isinstance(expected, Tensor):
            assert values[group.numbers[-1]] == expected
            continue
        close = CLOSE * float(expected.abs().max()) + 1e-7
        result = values[group.numbers[-1]]
        assert group.stem is not None or (result is not None) == group.is_kept
        if group.is_kept:
            torch.testing.assert_close(result, expected, rtol=0, atol=close)
        for number in group.next:
            codes = values[net.plan.count + number]
            wrong = codes.data != codes.layer.encode(expected).data
            edge = codes.layer.activation.threshold.view(1, -1, 1, 1)
            assert not bool((wrong & ((expected - edge).abs() > close)).any())
        for number in step.frees:
            values[number] = None
    found = [values[number] for number in net.outputs]
    assert torch.equal(flat(found), flat(net(x)))


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_every_path_gives_the_bits_of_the_float_path(name: str, made) -> None:
    """Layers in full precision are torch's: of another number of threads they are others."""
    net = made(name)
    place(net, None)
    x = check_images(net.image, 2)
    expected = flat(net(x))
    before, large = torch.get_num_threads(), ("ssd", "resnet18", "one pixel", "conv ")
    full_precision = any(word in name for word in large)
    for path in build.supported():
        place(net, Kernel(build.library(path)))
        assert torch.equal(flat(net(x)), expected), path
        try:
            torch.set_num_threads(2)
            if not full_precision:
                assert torch.equal(flat(net(x)), expected), path
        finally:
            torch.set_num_threads(before)


@torch.no_grad()
@pytest.mark.parametrize("name", ["xnor", "adabin", "vgg", "wrn"])
def test_one_image_is_what_it_is_among_others(name: str, made) -> None:
    net = made(name)
    x = check_images(net.image, 3)
    together, alone = net(x), torch.cat([net(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert net(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_in_the_kernel_and_fed_by_the_step_before(name: str, made) -> None:
    net = made(name)
    assert net.plan.steps
    paths = {each.name: each for each in report(net)}
    numbers = {number: step.group for step in net.plan.steps for number in step.group.numbers}
    made_here = {number for step in net.plan.steps for number in step.group.next}
    found = 0
    for key, name_ in net.layer_names.items():
        layer, operation = net.layers[key], net.plan.operations[int(key)]
        if not isinstance(layer, PackedConv2d) or layer.shape[2:] != (3, 3):
            continue
        found += 1
        is_whole = layer.shape[1] % 4 == 0
        assert paths[name_].path.startswith("kernel: " if is_whole else "float: "), name_
        source = numbers.get(operation.args[0].number)
        if source is None or (source.epilogue or source.stem) is None:
            continue
        if len(source.next) < 2 and source.numbers[-1] == operation.args[0].number:
            assert int(key) in made_here, name_
            assert name_ in [n for each in paths.values() for n in each.feeds] or source.stem
    assert found
