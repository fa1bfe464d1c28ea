"""Binary layers: ordinary convolutions over quantized values, and the schedule's driver."""

import dataclasses
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnnbench
from bnnbench.config import load_quantizer, options
from bnnbench.layers import BinaryConv2d, BinaryLinear, binary_layers, set_progress
from bnnbench.quantizers.base import OutputOp, Side

ALL = options("quantizer")
GEOMETRIES = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": 1},
    "dilation": {"dilation": 2, "padding": 2},
    "uneven": {"stride": (1, 2), "padding": (2, 1), "dilation": (1, 2)},
    "same": {"padding": "same"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "bias": {"padding": 1, "bias": True},
}
# Of a geometry a method sees only how many filters share a map: the rest is torch's.
SEEN = ("plain", "groups", "depthwise")
FEW = ("xnor", "adabin", "bonn")
CASES = [(n, g) for g in GEOMETRIES for n in (ALL if g in SEEN else FEW)]


def _value(side: Side, x: Tensor) -> Tensor:
    """The quantized value, from the decomposition where there is one."""
    if side.bits != 1:  # a value without a binary code
        return side(x)
    scale, code, offset = side.decompose(x)
    return scale * code + offset


def _image(channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 9, 8, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("name", "geometry"), CASES)
def test_convolution_is_torchs_over_the_quantized_values(name, geometry):
    arguments = {"bias": False, **GEOMETRIES[geometry]}
    conv = load_quantizer(name).conv2d(4, 8, 3, **arguments).double().eval()
    x = _image()
    plain = nn.Conv2d(4, 8, 3, **arguments).double()
    plain.weight.data = _value(conv.weight_quantizer, conv.weight).detach()
    if conv.bias is not None:
        plain.bias = conv.bias
    expected = plain(_value(conv.activation_quantizer, x))
    if conv.output is not None:  # a learned scale
        expected = conv.output(expected, x)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(("name", "geometry"), CASES)
def test_gradients_flow_through_every_geometry(name, geometry):
    torch.manual_seed(0)
    wide = {"reduction": 1} if name == "r2b" else {}  # one hidden unit may be dead
    conv = load_quantizer(name, **wide).conv2d(4, 8, 3, **{"bias": False, **GEOMETRIES[geometry]})
    conv.weight_quantizer.start(conv.weight)  # else all of WAGE's small weights are 0
    x = _image().float().requires_grad_()
    out = conv(x)
    out.backward(torch.randn_like(out))
    used = (p for key, p in conv.named_parameters() if not key.endswith(".u"))  # RBONN's: 2nd step
    for tensor in (x, *used):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("padding_value", "padding"), itertools.product((-1, 0, 1), (1, (2, 1), (0, 3)))
)
@pytest.mark.parametrize("name", ["adabin", "dorefa", "xnor"])
def test_padding_value_stands_around_the_quantized_map(name, padding_value, padding):
    spec = load_quantizer(name)
    conv = spec.conv2d(
        4, 6, 3, padding=padding, stride=2, dilation=2, padding_value=padding_value
    ).double()
    x = _image()
    ph, pw = (padding, padding) if isinstance(padding, int) else padding
    padded = torch.full((2, 4, 9 + 2 * ph, 8 + 2 * pw), padding_value, dtype=torch.float64)
    padded[:, :, ph : ph + 9, pw : pw + 8] = _value(conv.activation_quantizer, x)
    weight = _value(conv.weight_quantizer, conv.weight)
    torch.testing.assert_close(conv(x), F.conv2d(padded, weight, conv.bias, 2, 0, 2))


SINGLE = [  # map, kernel, stride, padding; then what of the kernel meets the map
    (1, 3, 1, 1, (1, 1)),
    (1, 3, 2, 1, (1, 1)),
    (2, 3, 2, 1, (2, 2)),
    (3, 3, 4, 1, (2, 2)),
    (2, 5, 2, 2, (2, 2)),
    ((1, 2), 3, (1, 2), 1, (1, 2)),
    (2, 3, 1, 1, None),  # two windows a side
    (1, 1, 1, 0, None),
    (3, 3, 1, 0, None),  # all of it
    ((1, 4), 3, 1, 1, None),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "met"), SINGLE)
@pytest.mark.parametrize("groups", [1, 2])
def test_taps_that_meet_padding_alone_are_left_out_and_nothing_changes(
    monkeypatch, size, kernel, stride, padding, met, groups
):
    spec = load_quantizer("adabin")
    conv = spec.conv2d(4, 6, kernel, stride=stride, padding=padding, groups=groups).double()
    size = (size, size) if isinstance(size, int) else size
    x = torch.randn(3, 4, *size, dtype=torch.float64).requires_grad_()
    wanted = F.conv2d(
        conv.activation_quantizer(x),
        conv.weight_quantizer(conv.weight),
        conv.bias,
        stride,
        padding,
        1,
        groups,
    )
    gradient = torch.randn_like(wanted)
    expected = torch.autograd.grad(wanted, (x, conv.weight), gradient)
    used, plain = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, w, *rest: used.append(w.shape) or plain(x, w, *rest))
    out = conv(x)
    assert tuple(used[0][2:]) == (met or conv.kernel_size)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(torch.autograd.grad(out, (x, conv.weight), gradient), expected)


def test_convolution_is_an_ordinary_one():
    conv = load_quantizer("bnn").conv2d(4, 8, (3, 1), stride=2, padding=1, groups=2)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(conv, BinaryConv2d)
    twin = nn.Conv2d(4, 8, (3, 1), stride=2, padding=1, groups=2)
    assert conv.state_dict().keys() == twin.state_dict().keys()
    assert conv.weight.shape == twin.weight.shape
    assert (conv.stride, conv.padding, conv.groups) == (twin.stride, twin.padding, twin.groups)


@pytest.mark.parametrize("name", ALL)
def test_linear_is_torchs_over_the_quantized_values(name):
    layer = load_quantizer(name).linear(12, 5).double().eval()
    assert isinstance(layer, nn.Linear)
    assert isinstance(layer, BinaryLinear)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 12, dtype=torch.float64, generator=generator).requires_grad_()
    weight = _value(layer.weight_quantizer, layer.weight)
    expected = F.linear(_value(layer.activation_quantizer, x), weight, layer.bias)
    out = layer(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    of_training = ("rho", ".u", ".fc1", ".fc2")
    if name == "admm":  # no estimator: evaluation has a constant
        of_training = ("weight",)
    used = (p for key, p in layer.named_parameters() if not key.endswith(of_training))
    for tensor in (x, *used):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


# Of the layer, not of each filter.
ONE_SCALE = ("dorefa", "zhuang", "bonn", "pcnn", "mcn", "reste", "twn", "dsq", "lab", "abcnet")
ONE_SCALE += ("admm",)
RANDOM = ("ienet", "rbonn", "rebnn", "rbnn")  # scales or rotations start at random
CENTRED = ("siman",)  # activations, by the mean of all channels


@pytest.mark.parametrize("name", [name for name in ALL if name not in ONE_SCALE + RANDOM + CENTRED])
def test_statistics_of_a_grouped_filter_are_its_own(name):
    """A grouped convolution is two convolutions side by side, where the scale is per filter."""
    spec = load_quantizer(name)
    conv = spec.conv2d(4, 6, 3, groups=2, bias=False).double().eval()
    halves = [spec.conv2d(2, 3, 3, bias=False).double().eval() for _ in range(2)]
    x = _image()
    outputs = []
    for half, weight, part in zip(halves, conv.weight.chunk(2), x.chunk(2, dim=1), strict=True):
        half.weight.data = weight.detach()
        half.output = conv.output = None
        outputs.append(half(part))
    torch.testing.assert_close(conv(x), torch.cat(outputs, dim=1))


@pytest.mark.parametrize("value", [0.5, 2, -2])
def test_other_padding_values_are_refused(value):
    with pytest.raises(ValueError, match=rf"padding_value={value}: choose -1, 0 or \+1"):
        load_quantizer("bnn").conv2d(1, 1, 3, padding=1, padding_value=value)


@pytest.mark.parametrize("arguments", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_padding_value_needs_a_padding_in_pixels(arguments):
    with pytest.raises(ValueError, match="padding_value needs padding in pixels"):
        load_quantizer("bnn").conv2d(1, 1, 3, padding_value=1, **arguments)


def test_a_missing_argument_is_torchs_own_error():
    with pytest.raises(TypeError, match="kernel_size"):
        load_quantizer("bnn").conv2d(1, 1)


def test_weight_only_keeps_real_activations():
    conv = load_quantizer("xnor", input_scale=True).weight_only().conv2d(4, 2, 3, bias=False)
    x = _image().float()
    assert torch.equal(conv.activation_quantizer(x), x)
    assert conv.weight_quantizer.bits == 1
    assert conv.output is None  # K is part of binary activations
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight_quantizer(conv.weight)))


def _net() -> nn.Sequential:
    irnet, bnn = load_quantizer("irnet"), load_quantizer("bnn")
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        irnet.conv2d(2, 2, 3),
        nn.Sequential(bnn.conv2d(2, 2, 3)),
        nn.Flatten(),
        irnet.linear(8, 2),
    ).double()


def test_binary_layers_are_listed_in_order_with_their_names():
    net = _net()
    assert [(name, type(layer)) for name, layer in binary_layers(net)] == [
        ("1", BinaryConv2d),
        ("2.0", BinaryConv2d),
        ("4", BinaryLinear),
    ]


def test_set_progress_reaches_every_schedule():
    net = _net()
    bnnbench.set_progress(net, epoch=3, max_epochs=4)
    for index in (1, 4):
        for side in (net[index].weight_quantizer, net[index].activation_quantizer):
            assert float(side.schedule.t) == pytest.approx(0.1 * 100**0.75)
    set_progress(net, 2.5, 5)  # fractions, for runs limited by steps
    assert float(net[1].weight_quantizer.schedule.t) == pytest.approx(1.0)
    set_progress(net, 5, 5)
    assert float(net[1].weight_quantizer.schedule.t) == pytest.approx(10)


@pytest.mark.parametrize(("epoch", "max_epochs"), [(-1, 4), (5, 4), (0, 0), (0, -2)])
def test_set_progress_refuses_epochs_outside_the_run(epoch, max_epochs):
    with pytest.raises(ValueError, match=f"epoch {epoch} .*max_epochs={max_epochs}"):
        set_progress(_net(), epoch, max_epochs)


def test_an_output_op_of_another_kind_is_refused_at_once():
    spec = load_quantizer("bnn")
    other = dataclasses.replace(spec, output=lambda layer: nn.Identity())
    with pytest.raises(TypeError, match=r"quantizer=bnn: Identity must be an OutputOp"):
        other.conv2d(4, 8, 3)


@pytest.mark.parametrize(("for_linear", "found"), [(True, True), (False, False)])
def test_an_output_op_says_whether_linear_layers_have_it(for_linear, found):
    class Op(OutputOp):
        def __init__(self, layer):
            super().__init__()

    Op.for_linear = for_linear
    spec = load_quantizer("bnn")
    for output in (Op, functools.partial(Op)):
        own = dataclasses.replace(spec, output=output)
        assert isinstance(own.conv2d(4, 8, 3).output, Op)
        assert isinstance(own.linear(4, 8).output, Op) == found
