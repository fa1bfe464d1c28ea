"""A packed network: the operations of a packed file, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.runtime.check import check_images, kept
from bnnbench.runtime.constants import Constants, repeated
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.detection import default_boxes, detect
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.format import BadPackedFile
from bnnbench.runtime.fusion import Plan
from bnnbench.runtime.linear import PackedLinear
from bnnbench.runtime.operation import PACKED, Const, Operation, filled, parsed
from bnnbench.runtime.ops import OPS


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
        self.operations = [parsed(entry) for entry in document["nodes"]]
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
        self.eval()
        self._prepare()

    def _prepare(self) -> None:
        """What runs the operations, which copies make of their own constants and layers."""
        self.steps = [self.step(n, op) for n, op in enumerate(self.operations, start=1)]
        self._free_early()
        self.plan = Plan(self, self._shapes())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("steps", "plan")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

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
            for run, frees, _ in self.plan.steps:
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
        """Of each result, for two images; None of what is no map of floats."""
        nothing = [()] * len(self.operations)
        found = self._interpreted(torch.zeros(2, *self.image), nothing)
        return [_shape(each) for each in found]

    def _check(self, x: Tensor) -> None:
        if x.dim() != len(self.image) + 1 or tuple(x.shape[1:]) != self.image:
            shape = ", ".join(map(str, self.image))
            raise ValueError(f"{self.name} takes inputs (N, {shape}), not {tuple(x.shape)}")

    def _result(self, values: list[Any]) -> Any:
        found = tuple(values[number] for number in self.outputs)
        return found[0] if len(found) == 1 else found

    def constant(self, value: Any) -> Any:
        """A constant of an operation as a tensor; what is none as it is."""
        return self.constants.number(value.number) if isinstance(value, Const) else value

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
        binarizer = Binarizer(self.constant(edge), self.constant(flip), scale, offset)
        options: dict[str, Any] = {
            "activation": binarizer,
            "scale": repeated(weight_scale, len(signs)).flatten(),
            "offset": None
            if weight_offset is None
            else repeated(weight_offset, len(signs)).flatten(),
            "bias": self.constant(bias),
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

    def step(self, number: int, operation: Operation) -> Callable[[list[Any]], None]:
        """What computes result ``number``."""
        if operation.op in PACKED:
            layer, source = self.layers[str(number)], operation.args[0].number

            def run_layer(values: list[Any]) -> None:
                values[number] = layer(values[source])

            return run_layer
        function = OPS[operation.op]
        for each in operation.constants():  # weights are unpacked now, not with the first image
            self.constants.number(each)

        def run(values: list[Any]) -> None:
            args = filled(operation.args, values, self.constants.number)
            kwargs = {
                key: filled(value, values, self.constants.number)
                for key, value in operation.kwargs.items()
            }
            values[number] = function(*args, **kwargs)

        return run


def _shape(value: Any) -> tuple[int, ...] | None:
    is_map = isinstance(value, Tensor) and value.dtype == torch.float32 and value.dim() == 4
    return tuple(value.shape) if is_map else None


def built(document: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> PackedNetwork:
    """The network of a document. Raises BadPackedFile for one that makes no sense."""
    try:
        return PackedNetwork(document, tensors)
    except Exception as error:
        raise BadPackedFile(f"{name} holds no network that can be built: {error}") from error
