"""A packed network: the operations of a packed file, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnnbench.runtime.check import check_images, kept
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.detection import default_boxes, detect
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.format import BadPackedFile
from bnnbench.runtime.fusion import Plan
from bnnbench.runtime.linear import PackedLinear
from bnnbench.runtime.ops import DTYPES, OPS

PACKED = ("packed_conv", "packed_linear")


class Ref(NamedTuple):
    """The result of an operation, by its number; the input is number 0."""

    number: int


class Const(NamedTuple):
    """A constant, by its number."""

    number: int


class Operation(NamedTuple):
    """What one entry of the document says."""

    op: str
    args: list[Any]
    kwargs: dict[str, Any]

    def refs(self) -> list[int]:
        """Numbers of the results that it reads."""
        found: list[int] = []
        _visit([self.args, list(self.kwargs.values())], found)
        return found


def _visit(value: Any, found: list[int]) -> None:
    if isinstance(value, Ref):
        found.append(value.number)
    elif isinstance(value, list):
        for each in value:
            _visit(each, found)


class Constants(nn.Module):
    """The constants of a network as buffers, unpacked from the flat tensors of its file."""

    def __init__(self, entries: list[list[Any]], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.signs: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._place = dict.fromkeys(tensors, 0)
        self._tensors, count = tensors, 0
        for number, (kind, shape, *rest) in enumerate(entries):
            if kind == "signs":
                scale, *offset = (self.number(each) for each in rest)
                self.signs[number] = self._bits(shape), scale, offset[0] if offset else None
                continue
            if kind == "flags":
                value = self._bits(shape) > 0
            else:
                stored = rest[0] if rest else shape
                value = self._take(kind, prod(stored)).reshape(stored)
                value = value.float() if kind == "halves" else value.clone()
                value = value.expand(shape).contiguous() if rest else value
            self.register_buffer(f"c{number}", value, persistent=False)
            count += 1
        if any(self._place[kind] != len(tensor) for kind, tensor in tensors.items()):
            raise ValueError("there are more numbers than the operations use")
        del self._tensors

    def number(self, index: int) -> Tensor:
        """The constant of that number."""
        found = self._buffers.get(f"c{index}")
        if found is None:
            found = self.dense(index)
            self.register_buffer(f"c{index}", found, persistent=False)
        return found

    def dense(self, index: int) -> Tensor:
        """A 1-bit weight, unpacked."""
        signs, scale, offset = self.signs[index]
        value = repeated(scale, len(signs)) * signs
        return value if offset is None else value + repeated(offset, len(signs))

    def _take(self, kind: str, count: int) -> Tensor:
        start = self._place[kind]
        self._place[kind] = start + count
        if start + count > len(self._tensors[kind]):
            raise ValueError(f"there are too few {kind}")
        return self._tensors[kind][start : start + count]

    def _bits(self, shape: list[int]) -> Tensor:
        count = prod(shape)
        packed = self._take("bits", -(-count // 8)).numpy()
        bits = np.unpackbits(packed, count=count, bitorder="little")
        return torch.from_numpy(bits).float().mul_(2).sub_(1).view(shape)


def repeated(value: Tensor, count: int) -> Tensor:
    """The first axis of ``value`` in turn up to ``count``, where it is not 1."""
    if len(value) in (1, count):
        return value
    return value.repeat(-(-count // len(value)), *(1,) * (value.dim() - 1))[:count]


class PackedNetwork(nn.Module):
    """What a packed file holds, in evaluation, on the CPU.

    Args:
        document: as ``format.read`` gives it.
        tensors: likewise.

    Attributes:
        name: the run's, or what was given at the export.
        task: ``classification`` or ``detection``.
        class_names: in the order of the logits; a detector's labels count them from 1.
        image: channels, height and width of an image.
        mean, std: per channel, of pixels scaled to [0, 1]; empty where nobody said.
    """

    def __init__(self, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.document = dict(document)
        self.name, self.task = str(document["name"]), str(document["task"])
        self.class_names = [str(name) for name in document["classes"]]
        self.image = tuple(int(n) for n in document["image"])
        self.mean, self.std = list(document["mean"]), list(document["std"])
        self.constants = Constants(document["constants"], tensors)
        self.operations = [_parsed(entry) for entry in document["nodes"]]
        self.outputs = [int(number) for number in document["outputs"]]
        self.layers = nn.ModuleDict()
        for number, operation in enumerate(self.operations, start=1):
            if any(not 0 <= ref < number for ref in operation.refs()):
                raise ValueError(f"operation {number} reads what comes behind it")
            if operation.op in PACKED:
                self.layers[str(number)] = self._layer(operation)
        self.layer_names = {
            str(n): str(name) for n, name in zip(self.layers, document["layers"], strict=True)
        }
        self.steps = [self.step(n, op) for n, op in enumerate(self.operations, start=1)]
        self._free_early()
        self.eval()
        self.plan = Plan(self, self._shapes())

    def forward(self, x: Tensor) -> Any:
        """Normalised images float (N, C, H, W) to what the trained network gives.

        Logits (N, K), or of a detector class logits (N, A, K + 1) and offsets (N, A, 4).

        Raises:
            ValueError: images of another shape.
        """
        self._check(x)
        with torch.no_grad():
            values: list[Any] = [None] * self.plan.room
            values[0] = x.float()
            for run, frees in self.plan.steps:
                run(values)
                for number in frees:
                    values[number] = None
        return self._result(values)

    def interpreted(self, x: Tensor) -> Any:
        """``forward``, each operation by itself and in order: every layer's module is called."""
        self._check(x)
        return self._result(self._interpreted(x, self.frees))

    @torch.no_grad()
    def _interpreted(self, x: Tensor, frees: Sequence[Sequence[int]]) -> list[Any]:
        values: list[Any] = [None] * (len(self.operations) + 1)
        values[0] = x.float()
        for run, unread in zip(self.steps, frees, strict=True):
            run(values)
            for number in unread:
                values[number] = None
        return values

    def _shapes(self) -> list[tuple[int, ...] | None]:
        """Of each result, for two images."""
        nothing = [()] * len(self.operations)
        found = self._interpreted(torch.zeros(2, *self.image), nothing)
        return [tuple(each.shape) if isinstance(each, Tensor) else None for each in found]

    def _check(self, x: Tensor) -> None:
        if x.dim() != len(self.image) + 1 or tuple(x.shape[1:]) != self.image:
            shape = ", ".join(map(str, self.image))
            raise ValueError(f"{self.name} takes inputs (N, {shape}), not {tuple(x.shape)}")

    def _result(self, values: list[Any]) -> Any:
        found = tuple(values[number] for number in self.outputs)
        return found[0] if len(found) == 1 else found

    def constant(self, value: Any) -> Any:
        """A constant of an operation as a tensor; what is none as it is."""
        return self._tensor(value)

    def verify(self) -> float:
        """How far the output of the file's check image is from what it was, over its largest value.

        Sums in another order may take an activation across its threshold: 0.01 is not damage.
        """
        check = self.document["check"]
        found = torch.tensor(kept(self(check_images(self.image, 1, check["seed"]))))
        known = torch.tensor(check["outputs"])
        return float((found - known).abs().max() / known.abs().max().clamp(min=1e-12))

    @cached_property
    def anchors(self) -> Tensor:
        """Of a detector, its default boxes (A, 4), xyxy in pixels."""
        return default_boxes(self.document["boxes"])

    def detect(self, outputs: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Of a detector, boxes, scores and labels from 1 of each image."""
        boxes = self.document["boxes"]
        return detect(outputs, self.anchors, int(boxes["size"]), boxes["rules"])

    def _free_early(self) -> None:
        last = {number: number for number in range(len(self.operations) + 1)}
        for number, operation in enumerate(self.operations, start=1):
            last |= dict.fromkeys(operation.refs(), number)
        kept = set(self.outputs)
        self.frees = [
            [number for number, end in last.items() if end == step and number not in kept]
            for step in range(1, len(self.operations) + 1)
        ]

    def _layer(self, operation: Operation) -> nn.Module:
        """The module of a packed layer."""
        _, edge, flip, scale, offset, weight, bias, *shape = operation.args
        signs, weight_scale, weight_offset = self.constants.signs[weight.number]
        binarizer = Binarizer(self._tensor(edge), self._tensor(flip), scale, offset)
        options: dict[str, Any] = {
            "activation": binarizer,
            "scale": weight_scale.flatten(),
            "offset": None if weight_offset is None else weight_offset.flatten(),
            "bias": self._tensor(bias),
        }
        if operation.op == "packed_linear":
            return PackedLinear(pack_bits(signs), tuple(signs.shape), **options)
        stride, padding, dilation, groups, padding_value = shape
        return PackedConv2d(
            pack_bits(signs),
            tuple(signs.shape),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_value=padding_value,
            **options,
        )

    def _tensor(self, value: Any) -> Any:
        return self.constants.number(value.number) if isinstance(value, Const) else value

    def step(self, number: int, operation: Operation) -> Callable[[list[Any]], None]:
        """What computes result ``number``."""
        if operation.op in PACKED:
            layer, source = self.layers[str(number)], operation.args[0].number

            def run_layer(values: list[Any]) -> None:
                values[number] = layer(values[source])

            return run_layer
        function = OPS[operation.op]
        for each in _constants(operation):  # weights are unpacked now, not with the first image
            self.constants.number(each)

        def run(values: list[Any]) -> None:
            args = _filled(operation.args, values, self.constants.number)
            kwargs = {
                key: _filled(value, values, self.constants.number)
                for key, value in operation.kwargs.items()
            }
            values[number] = function(*args, **kwargs)

        return run


def _constants(operation: Operation) -> list[int]:
    found: list[int] = []

    def visit(value: Any) -> None:
        if isinstance(value, Const):
            found.append(value.number)
        elif isinstance(value, list):
            for each in value:
                visit(each)

    visit([operation.args, list(operation.kwargs.values())])
    return found


def _filled(value: Any, values: Sequence[Any], number: Callable[[int], Tensor]) -> Any:
    if isinstance(value, Ref):
        return values[value.number]
    if isinstance(value, Const):
        return number(value.number)
    if isinstance(value, list):
        return [_filled(each, values, number) for each in value]
    return value


def replaced(operation: Operation, numbers: Mapping[int, int]) -> Operation:
    """``operation``, reading other results instead of some."""

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [other(each) for each in value]
        return Ref(numbers.get(value.number, value.number)) if isinstance(value, Ref) else value

    kwargs = {key: other(value) for key, value in operation.kwargs.items()}
    return Operation(operation.op, other(operation.args), kwargs)


def _parsed(entry: Any) -> Operation:
    op, args, *rest = entry
    if op not in OPS and op not in PACKED:
        raise ValueError(f"{op} is no operation of this version")
    kwargs = {str(key): _value(value) for key, value in (rest[0] if rest else {}).items()}
    return Operation(op, _value(args), kwargs)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if not isinstance(value, str):
        return value
    kind, rest = value[:1], value[1:]
    if kind == "%":
        return Ref(int(rest))
    if kind == "$":
        return Const(int(rest))
    if kind == "#":
        return DTYPES[rest]
    if kind == "=":
        return float(rest)
    return rest


def built(document: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> PackedNetwork:
    """The network of a document. Raises BadPackedFile for one that makes no sense."""
    try:
        return PackedNetwork(document, tensors)
    except Exception as error:
        raise BadPackedFile(f"{name} holds no network that can be built: {error}") from error
