"""A 1-bit convolution that computes from bits: in the kernel, or exactly as well in floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnnbench.runtime import layout
from bnnbench.runtime.epilogue import Epilogue
from bnnbench.runtime.kernel import Kernel, active
from bnnbench.runtime.operators import packed_conv2d
from bnnbench.runtime.shapes import checked, is_traced
from bnnbench.runtime.sign_convolution import SignConv2d


@dataclass(frozen=True)
class Codes:
    """Codes of a map, made for one layer: as that layer's path wants them."""

    layer: PackedConv2d
    shape: tuple[int, int, int, int]
    data: Tensor


class PackedConv2d(SignConv2d):
    """The same, computed where that is fastest, together with what follows it."""

    def choose(self) -> tuple[Kernel | None, str]:
        """The kernel, unless something stands in its way."""
        obstacle = layout.obstacle(self)
        return (None, obstacle) if obstacle else active()

    def forward(self, x: Tensor | Codes) -> Tensor:
        """``x`` (N, I, H, W) float32 or its codes, to (N, O, H', W'), channels-last."""
        return self.fused(x)[0]  # pyright: ignore[reportReturnType]

    def fused(
        self,
        x: Tensor | Codes,
        *,
        epilogue: Epilogue | None = None,
        add: Tensor | None = None,
        factor: Tensor | None = None,
        next: Sequence[PackedConv2d] = (),
        keep: bool = True,
    ) -> tuple[Tensor | None, list[Codes]]:
        """The layer, its epilogue, and the codes of the layers that read its output.

        Args:
            x: (N, I, H, W) float32, or codes that were made for this layer.
            epilogue: what follows the layer; None for nothing.
            add: (N, O, H', W'), the shortcut of the epilogue.
            factor: (N, 1, H', W'), by which the layer is multiplied before ``before``.
            next: up to two layers whose codes are wanted.
            keep: whether the output itself is wanted.

        Returns:
            The output (N, O, H', W'), or None without ``keep``, and the codes of each of ``next``.
        """
        codes = x if isinstance(x, Codes) else self.encode(x)
        if codes.layer is not self:
            raise ValueError("these codes were made for another layer")
        if is_traced():  # codes are maps then, see `encode`
            handle = 0 if epilogue is None else epilogue.handle
            y = packed_conv2d(codes.data, self.handle, handle, add, factor)
            return (y if keep else None), [layer.encode(y) for layer in next]
        kernel = self.engine[0]
        if kernel is None:
            y = self.in_floats(codes.data, epilogue, add, factor)
            return (y if keep else None), [layer.encode(y) for layer in next]
        return self.in_kernel(kernel, codes, epilogue, add, factor, tuple(next), keep)

    def in_kernel(
        self,
        kernel: Kernel,
        codes: Codes,
        epilogue: Epilogue | None,
        add: Tensor | None,
        factor: Tensor | None,
        next: tuple[PackedConv2d, ...],
        keep: bool,
    ) -> tuple[Tensor | None, list[Codes]]:
        """``fused`` in one call of the kernel, if all of ``next`` are computed there as well."""
        plan = self._derived.get(key := (epilogue, codes.shape[2:], next))
        if plan is None:
            plan = self._derived[key] = self.planned(kernel, epilogue, codes.shape[2:], next)
        if plan.next is None:
            y, _ = self.in_kernel(kernel, codes, epilogue, add, factor, (), True)
            assert y is not None
            return (y if keep else None), [layer.encode(y) for layer in next]
        out, high, wide = plan.outputs
        shape = codes.shape[0], out, high, wide
        threads = torch.get_num_threads()
        if keep:
            y = torch.empty(shape, memory_format=torch.channels_last)
        else:
            y = torch.empty(threads * plan.chunk)
        if add is not None:
            add = checked(add, shape, out, self.bits.device)
        if factor is not None:
            factor = checked(factor, (shape[0], 1, high, wide), 1, self.bits.device)
        made = [Codes(layer, shape, encoder.room(shape)) for layer, encoder in plan.next]
        kernel.convolve(
            plan.address,
            codes.data.data_ptr(),
            None if factor is None else factor.data_ptr(),
            None if add is None else add.data_ptr(),
            y.data_ptr(),
            keep,
            made[0].data.data_ptr() if made else None,
            made[1].data.data_ptr() if len(made) > 1 else None,
            shape[0],
            threads,
        )
        return (y if keep else None), made

    def planned(
        self,
        kernel: Kernel,
        epilogue: Epilogue | None,
        size: Sequence[int],
        next: tuple[PackedConv2d, ...],
    ) -> layout.Plan:
        """The kernel's view of this layer, this epilogue and these next layers."""
        if any(layer.in_channels != self.shape[0] for layer in next):
            raise ValueError(f"a next layer does not read {self.shape[0]} channels")
        is_fused = len(next) <= 2 and all(layer.engine[0] is kernel for layer in next)
        return layout.plan(self, kernel, epilogue, size, next if is_fused else None)

    def encoding(self, kernel: Kernel) -> layout.Encoding:
        """How the kernel makes codes of this layer's input."""
        return self.derived("encoding", lambda: layout.encoding(self, kernel))

    def encode(self, x: Tensor) -> Codes:
        """The codes of ``x`` (N, I, H, W), as this layer reads them."""
        x = checked(x, x.shape if x.dim() == 4 else (), self.in_channels, self.bits.device)
        n, c, h, w = x.shape
        shape = n, c, h, w
        if is_traced():
            return Codes(self, shape, x)
        kernel = self.engine[0]
        if kernel is None:
            return Codes(self, shape, self.activation.codes(x))
        encoder = self.encoding(kernel)
        codes = encoder.room(shape)
        kernel.encode(
            encoder.address, x.data_ptr(), codes.data_ptr(), n, h, w, torch.get_num_threads()
        )
        return Codes(self, shape, codes)


def pack_bits(weight: Tensor) -> Tensor:
    """``bits`` of a weight (O, ...): its signs, that of 0 being +1, eight a byte."""
    high = (weight.detach().cpu().flatten(1) >= 0).numpy()
    return torch.from_numpy(np.packbits(high, axis=1, bitorder="little"))
