"""The operations that a packed file may name; nothing else of a file is ever looked up."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# PyTorch's own, without side effects, as torch.export writes them: packet and overload.
_ATEN = """
abs add.Tensor add.Scalar addcmul adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d amax
amin arange avg_pool2d batch_norm bmm cat chunk clamp clamp.Tensor clamp_min clamp_max
constant_pad_nd conv1d conv2d conv_transpose2d.input cos div.Tensor div.Scalar div.Tensor_mode elu
eq.Scalar eq.Tensor erf exp exp2 expand expand_as flatten.using_ints flip full full_like ge.Scalar
ge.Tensor gelu glu group_norm gt.Scalar gt.Tensor hardsigmoid hardswish hardtanh im2col index.Tensor
index_select instance_norm layer_norm le.Scalar le.Tensor leaky_relu linalg_vector_norm linear log
log2 log_softmax.int lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul max.dim
max_pool2d maximum mean mean.dim min.dim minimum mish mul.Tensor mul.Scalar narrow neg new_ones
new_zeros norm.ScalarOpt_dim ones ones_like permute pixel_shuffle pixel_unshuffle pow.Scalar
pow.Tensor_Scalar pow.Tensor_Tensor prelu reciprocal relu relu6 repeat repeat_interleave.self_int
reshape rms_norm roll round rsqrt rsub.Scalar scaled_dot_product_attention select.int selu sigmoid
sign silu sin slice.Tensor softmax.int softplus split.Tensor split_with_sizes sqrt square squeeze
squeeze.dim squeeze.dims stack std_mean.correction std.correction std.dim sub.Tensor sub.Scalar
sum sum.dim_IntList sym_size.int tan tanh to.dtype transpose.int unbind.int unflatten.int unfold
unsqueeze upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_nearest2d.vec var.correction
var.dim var_mean.correction view where.self zeros zeros_like
"""
# Arithmetic with the number of images, which a graph does not know.
_NUMBERS = {
    "getitem": operator.getitem,
    "number.add": operator.add,
    "number.sub": operator.sub,
    "number.mul": operator.mul,
    "number.floordiv": operator.floordiv,
    "number.mod": operator.mod,
}


def over_axis(values: Tensor, axis: int) -> Tensor:
    """Values of channels, to broadcast against maps (axis 1) or behind the last axis (-1)."""
    return values.view(-1, 1, 1) if axis == 1 and values.numel() > 1 else values


def binarize(
    x: Tensor, edge: Tensor, flip: Tensor | None, scale: float, offset: float, axis: int
) -> Tensor:
    """``scale * c + offset`` with ``c`` +1 from ``edge`` on and -1 below, or turned round."""
    high = x >= over_axis(edge, axis)
    if flip is not None:
        high = high ^ over_axis(flip, axis)
    return torch.where(high, scale + offset, offset - scale)


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``scale * x + shift`` of maps (N, C, H, W), or of numbers (N, C), channel by channel."""
    axis = 1 if x.dim() == 4 else -1
    x = x if scale is None else x * over_axis(scale, axis)
    return x if shift is None else x + over_axis(shift, axis)


def slopes(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """``positive * x`` where x is not negative, else ``negative * x``, channel by channel."""
    return torch.where(x >= 0, over_axis(positive, 1) * x, over_axis(negative, 1) * x)


def pad(x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``torch.nn.functional.pad``."""
    return F.pad(x, pad, mode, value)


def _aten(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


OPS: dict[str, Callable[..., Any]] = {name: _aten(name) for name in _ATEN.split()}
OPS |= _NUMBERS
OPS["view"] = OPS["reshape"]  # a packed layer's maps lie otherwise in memory than the trained one's
OPS |= {"binarize": binarize, "affine": affine, "slopes": slopes, "pad": pad}

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)
}
