"""A classifier as ONNX: its 1-bit layers simulated in floats, for any runtime."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from bnnbench.packing.document import Facts, packed
from bnnbench.packing.export import image_of
from bnnbench.packing.sides import NotPackable
from bnnbench.runs.trained import Trained
from bnnbench.runtime.check import check_images
from bnnbench.runtime.graph import PackedNetwork, built
from bnnbench.runtime.operation import Const, Ref
from bnnbench.runtime.ops import OPS, binarize
from bnnbench.runtime.shapes import resolved_padding


class Simulated(nn.Module):
    """A packed network whose layers are ordinary convolutions of -1 and +1."""

    def __init__(self, network: PackedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""
        net = self.network
        values: dict[int, Tensor] = {0: x}
        for number, operation in enumerate(net.operations, start=1):

            def known(value: object) -> object:
                if isinstance(value, Ref):
                    return values[value.number]
                if isinstance(value, Const):
                    return net.constants.number(value.number)
                return [known(each) for each in value] if isinstance(value, list) else value

            args = [known(each) for each in operation.args]
            kwargs = {key: known(value) for key, value in operation.kwargs.items()}
            if operation.op in ("packed_conv", "packed_linear"):
                values[number] = _layer(operation.op, args)
            else:
                values[number] = OPS[operation.op](*args, **kwargs)
        return values[net.outputs[0]]


def _layer(op: str, args: list) -> Tensor:
    x, edge, flip, scale, offset, weight, bias, *shape = args
    axis = 1 if op == "packed_conv" else -1
    x = binarize(x, edge, flip, scale, offset, axis)
    if op == "packed_linear":
        return torch.nn.functional.linear(x, weight, bias)
    stride, padding, dilation, groups, outside = shape
    (top, bottom), (left, right) = resolved_padding(padding, (0, 0), (1, 1))
    if outside or (top, left) != (bottom, right):
        x = torch.nn.functional.pad(x, [left, right, top, bottom], value=outside)
        padding = [0, 0]
    return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


@torch.no_grad()
def export_onnx(trained: Trained, file: Path) -> None:
    """Write the network of a run as ONNX, once onnxruntime gives the same logits.

    The file's input is ``images``, normalised as in training, its output ``logits``; the number of
    images is free.

    Raises:
        NotPackable: no classifier, one that cannot be followed, or other logits in onnxruntime.
        ValueError: the packages of ``bnnbench[onnx]`` are not installed.
    """
    if trained.task != "classification":
        raise NotPackable(f"{trained.name} is a detector: format=onnx is for classifiers")
    runtime = _needed("onnxruntime")
    _needed("onnx")
    _needed("onnxscript")
    size = image_of(trained)
    net = copy.deepcopy(trained.net).cpu().float().eval()
    simulated = Simulated(built(*packed(net, size, Facts(trained.name)), trained.name))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        _write(simulated, check_images(size, 2), beside)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(beside, options, providers=["CPUExecutionProvider"])
        images = check_images(size, 8)
        (logits,) = session.run(None, {"images": images.numpy()})
        _compare(net(images), torch.from_numpy(logits))
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


def _compare(expected: Tensor, found: Tensor) -> None:
    """Of images in which no activation crossed its threshold, the logits are equal: of most."""
    difference = (expected - found).abs().amax(1) / expected.abs().amax().clamp(min=1e-6)
    if float(difference.median()) > 1e-3:
        raise NotPackable(
            f"onnxruntime gives other logits, by {float(difference.median()):.1e} of the largest: "
            "nothing is written"
        )


def _write(net: nn.Module, images: Tensor, file: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (images,),
            file,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("count", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _needed(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"format=onnx needs {name}: pip install bnnbench[onnx]") from error
