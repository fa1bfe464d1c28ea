"""Any network binarized in one call: its convolutions and linear layers become binary layers.

A layer changes its class and gains the quantizers of both sides; its weight, its hooks and its name
stay what they were. Linear layers take inputs of any rank, each position being a sample of its own.
timm's ``Conv2dSame`` pads the binarized map. Nothing else that only looks like a convolution is
touched (weight standardisation, parametrized weights), nor is a weight that the network uses past
its layer's own call: a trial run finds those. How a network is converted: docs/any_network.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.linear import Linear as TimmLinear
from timm.layers.padding import pad_same
from torch import Tensor, nn

from bnnbench.config import load_quantizer
from bnnbench.layers import (
    BinaryConv2d,
    BinaryLinear,
    QuantizerSpec,
    binary_layers,
    quantized_weight,
)
from bnnbench.quantizers import NONLINEARITIES
from bnnbench.quantizers.base import overridden

Keep = Callable[[str, nn.Module], bool] | Sequence[str]
Layer = nn.Conv2d | nn.Linear
Axes = set[tuple[int, bool]]  # (channels, whether they are the last axis) of each input
Ran = dict[nn.Module, Axes]

SHORTCUTS = ("downsample", "shortcut", "skip")  # in the names of projections, wherever those pool
NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6)
KINDS = (nn.Conv2d, nn.Linear, *NEVER_NEGATIVE)
UNSIZED = (224, 224)  # size of the trial run's images where nothing says how large they are


class SameConv2d(BinaryConv2d):
    """TensorFlow's padding, around the binarized map."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = pad_same(input, list(self.kernel_size), list(self.stride), list(self.dilation))
        return super()._conv_forward(padded, weight, bias)


class TokenLinear(BinaryLinear):
    """Over the last axis of (..., C); each position is a sample of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (..., C) to (..., O)."""
        x = self.activation_quantizer(input.reshape(-1, input.shape[-1])).reshape(input.shape)
        return F.linear(x, quantized_weight(self), self.bias)


class PerChannel(nn.Module):
    """A nonlinearity with parameters per channel: axis 1 of maps, else the last axis."""

    def __init__(self, act: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.act, self.channels_last = act, channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        if not self.channels_last:
            return self.act(x)
        return self.act(x.reshape(-1, x.shape[-1], 1, 1)).reshape(x.shape)


BINARY: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: BinaryConv2d,
    Conv2dSame: SameConv2d,
    nn.Linear: TokenLinear,
    TimmLinear: TokenLinear,
}


def binarize(
    model: nn.Module,
    quantizer: str | QuantizerSpec,
    keep: Keep | None = None,
    nonlinearity: str | None = "auto",
    input_size: Sequence[int] | None = None,
) -> nn.Module:
    """Binarize the convolutions and linear layers of ``model`` in place, and return it.

    The network runs on noise before and after, in evaluation and without gradient; it must be able
    to. The names of its parameters stay, so that its checkpoints load with ``strict=False``.

    Args:
        model: any network.
        quantizer: an option of the quantizer group, or what ``load_quantizer`` returned.
        keep: what stays in full precision: patterns of module names, as in ``fnmatch``, or a
            function of name and module. By default ``default_keep(model)``. A ReLU that it names
            stays as well.
        nonlinearity: what takes the place of ReLU and ReLU6. ``auto``: the quantizer's own where it
            binarizes to the sign, which is constant behind a ReLU, else nothing; None: nothing.
        input_size: shape of one input, (C, H, W) of images; by default timm's for its models, else
            the first layer's channels at 224 pixels.

    Raises:
        ValueError: a method with a start of its own, nothing is left to binarize, a pattern that no
            module has, a nonlinearity that makes no sense, or a network that does not run on
            ``input_size``, as it is or binarized (then build it anew).
    """
    spec = load_quantizer(quantizer) if isinstance(quantizer, str) else quantizer
    if overridden(spec.example.weight_quantizer, "start"):
        raise ValueError(
            f"quantizer={spec.name} starts the weights in its own way, which would undo those of "
            "the network: choose a backbone of the suite, such as vgg7"
        )
    name = replacement(spec, nonlinearity)
    kept = _kept(model, default_keep(model) if keep is None else keep)
    size = tuple(input_size) if input_size is not None else _input_size(model)
    ran = _trial(model, size)
    free = {path: module for path, module in _named(model, KINDS).items() if path not in kept}
    _check_attention(model, free, ran)
    layers = _convertible(free, ran)
    acts = _acts(free, name, ran) if name else {}
    for layer in layers:
        _convert(layer, spec)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in acts:
            model.set_submodule(path, acts[module].to(next(model.parameters())))
    if spec.example.activation_quantizer.symmetric:
        _warn_of_constant_inputs(model, size)
    return model


def default_keep(model: nn.Module) -> list[str]:
    """Names of the layers that stay in full precision unless ``keep`` says otherwise.

    The first of all convolutions and linear layers, the classifier (timm's ``get_classifier``, else
    the last of them), and the 1x1 convolutions of shortcuts: strided, or with ``downsample``,
    ``shortcut`` or ``skip`` in their names. First and last are meant by the order of registration.
    """
    layers = _named(model, (nn.Conv2d, nn.Linear))
    if not layers:
        raise ValueError(f"{type(model).__name__} has neither convolutions nor linear layers")
    names, ends = list(layers), {next(iter(layers.values())), *_classifier(model, layers)}
    return [name for name in names if layers[name] in ends or _is_shortcut(name, layers[name])]


def replacement(quantizer: QuantizerSpec, nonlinearity: str | None) -> str | None:
    """What ``nonlinearity`` of ``binarize`` puts in the place of ReLUs; None: they stay."""
    is_sign = quantizer.example.activation_quantizer.symmetric
    if nonlinearity == "auto":
        nonlinearity = quantizer.config["nonlinearity"] if is_sign else None
    if nonlinearity not in (None, *NONLINEARITIES):
        valid = ("auto", None, *NONLINEARITIES)
        raise ValueError(f"nonlinearity={nonlinearity!r}: choose one of {valid}")
    if nonlinearity == "relu" and is_sign:
        raise ValueError(
            f"nonlinearity=relu before quantizer={quantizer.name}: the sign of a ReLU's output is "
            "constant; choose identity, hardtanh, prelu, rprelu or maxout"
        )
    return nonlinearity


def _named(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def _classifier(model: nn.Module, layers: dict[str, nn.Module]) -> set[nn.Module]:
    if not hasattr(model, "get_classifier"):
        return {list(layers.values())[-1]}
    heads = model.get_classifier()  # pyright: ignore[reportCallIssue]
    heads = heads if isinstance(heads, tuple | list) else (heads,)
    return {module for head in heads if isinstance(head, nn.Module) for module in head.modules()}


def _is_shortcut(name: str, layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or set(layer.kernel_size) != {1}:
        return False
    return max(layer.stride) > 1 or any(word in name for word in SHORTCUTS)


def _kept(model: nn.Module, keep: Keep) -> set[str]:
    """The names that ``keep`` means. Raises ValueError for patterns that mean none."""
    modules = _named(model, KINDS)
    if callable(keep):
        return {name for name, module in modules.items() if keep(name, module)}
    patterns = [keep] if isinstance(keep, str) else keep
    matches = {p: {name for name in modules if fnmatchcase(name, p)} for p in patterns}
    if unknown := [pattern for pattern, names in matches.items() if not names]:
        raise ValueError(f"keep={unknown} names no layer; there are {', '.join(modules)}")
    return set().union(*matches.values())


def _input_size(model: nn.Module) -> tuple[int, ...]:
    config = getattr(model, "pretrained_cfg", None) or {}
    if "input_size" in config:
        return tuple(config["input_size"])
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    if isinstance(first, nn.Conv2d):
        return first.in_channels, *UNSIZED
    return (first.in_features,)


def _run(
    model: nn.Module,
    size: tuple[int, ...],
    watched: Iterable[nn.Module],
    see: Callable[[nn.Module, Tensor], None],
    hint: str = "give the shape of one input as input_size",
) -> None:
    """Run ``model`` on two noise inputs and show ``see`` the inputs of the ``watched`` modules."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        see(module, next(iter((*args, *kwargs.values()))))

    hooks = [m.register_forward_pre_hook(hook, with_kwargs=True) for m in watched]
    modes = {module: module.training for module in model.modules()}  # parts may be frozen
    noise = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            model.eval()(noise.to(next(model.parameters())))
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} does not run on inputs of shape {size}: {error}; {hint}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in hooks:
            handle.remove()


def _trial(model: nn.Module, size: tuple[int, ...]) -> Ran:
    """What the layers and ReLUs that run see.

    Four axes are a map (N, C, H, W) behind a convolution, (N, H, W, C) behind a linear layer.
    """
    seen: Ran = {}
    behind_linear = False

    def see(module: nn.Module, x: Tensor) -> None:
        nonlocal behind_linear
        if isinstance(module, nn.Conv2d | nn.Linear):
            behind_linear = isinstance(module, nn.Linear)
        last = behind_linear or x.dim() != 4
        seen.setdefault(module, set()).add((x.shape[-1 if last else 1], last))

    _run(model, size, _named(model, KINDS).values(), see)
    return seen


def _convertible(free: dict[str, nn.Module], ran: Ran) -> list[Layer]:
    """The layers to binarize; a warning names those that cannot be."""
    layers: list[Layer] = []
    foreign, unused = [], []
    for name, module in free.items():
        if not isinstance(module, nn.Conv2d | nn.Linear) or _is_binary(module):
            continue
        if type(module) not in BINARY or not isinstance(module.weight, nn.Parameter):
            foreign.append(f"{name} ({type(module).__name__})")
        elif module not in ran:
            unused.append(name)
        else:
            layers.append(module)
    if foreign:
        rank_zero_warn(f"layers of kinds that have no binary twin stay fp32: {', '.join(foreign)}")
    if unused:
        rank_zero_warn(
            "layers that no trial run in evaluation called stay fp32, whether training alone uses "
            f"them or their weights are read past them: {', '.join(unused)}"
        )
    if not layers:
        raise ValueError("there is no layer to binarize: keep= leaves none, or warnings say why")
    return layers


def _check_attention(model: nn.Module, free: dict[str, nn.Module], ran: Ran) -> None:
    """Refuse attention that multiplies with its weights past its layers' own calls.

    Raises:
        ValueError: names such a layer and the ``keep`` that leaves it in full precision.
    """
    inside = {
        f"{path}.{name}".lstrip("."): path
        for path, module in model.named_modules()
        if "Attention" in type(module).__name__
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and child not in ran
    }
    if found := [name for name in inside if name in free and not _is_binary(free[name])]:
        name, path = found[0], inside[found[0]]
        raise ValueError(
            f"{name} of {path or 'the network'} ({type(model.get_submodule(path)).__name__}) "
            "cannot be binarized: its attention multiplies with weights past that layer's own "
            f"call; keep=[...,{_pattern(found)}] leaves it in full precision, beside the names of "
            "default_keep"
        )


def _pattern(names: list[str]) -> str:
    """One pattern of the last part of the first of ``names``."""
    return f"*{names[0].rpartition('.')[2]}"


def _is_binary(module: nn.Module) -> bool:
    return isinstance(module, BinaryConv2d | BinaryLinear)


def _convert(layer: Layer, spec: QuantizerSpec) -> None:
    """Make ``layer`` its binary twin, the sides where and in the mode that it is."""
    layer.__class__ = BINARY[type(layer)]  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(layer, BinaryConv2d):
        layer.padding_value = 0
    spec.attach(layer, layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features)
    layer.to(layer.weight.device, layer.weight.dtype).train(layer.training)


def _acts(free: dict[str, nn.Module], name: str, ran: Ran) -> dict[nn.Module, nn.Module]:
    """By ReLU, the nonlinearity ``name`` that takes its place."""
    relus = {path: module for path, module in free.items() if isinstance(module, NEVER_NEGATIVE)}
    return {m: _act(path, m, name, ran[m]) for path, m in relus.items() if m in ran}


def _act(path: str, relu: nn.Module, name: str, axes: Axes) -> nn.Module:
    """The nonlinearity ``name`` in the place of ``relu``, which ran over ``axes``."""
    channels, last = next(iter(axes))
    act = NONLINEARITIES[name](channels)
    if hasattr(act, "inplace"):
        act.inplace = relu.inplace  # pyright: ignore: the input may be needed again
    if next(act.parameters(), None) is None:
        return act
    if len(axes) > 1:
        raise ValueError(
            f"{path} acts on maps of different widths, {sorted(axes)}: nonlinearity={name} has "
            "parameters per channel; choose one without, such as hardtanh or identity"
        )
    return PerChannel(act, last).train(relu.training)


def _warn_of_constant_inputs(model: nn.Module, size: tuple[int, ...]) -> None:
    constant: dict[nn.Module, bool] = {}
    names: dict[nn.Module, str] = {layer: name for name, layer in binary_layers(model)}

    def see(module: nn.Module, x: Tensor) -> None:
        constant[module] = constant.get(module, True) and bool(x.min() >= 0)

    _run(model, size, names, see, "it is binarized by now: build it anew")
    if found := [names[layer] for layer, never_negative in constant.items() if never_negative]:
        rank_zero_warn(
            "no input of these binarized layers is negative in a trial run, so that their signs "
            f"say nothing: {', '.join(found)}; see nonlinearity= and keep="
        )
