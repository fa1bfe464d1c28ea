"""Towards Effective Low-bitwidth CNNs (Zhuang et al., CVPR 2018, arXiv 1711.00205).

DoReFa's k-bit weights and activations; in the weights ``max|tanh w|`` is a constant, as in
nowgood/QuantizeCNNModel, which is not the authors'. The method is how they are trained:
``recipe=native`` quantizes weights before activations, more bits before fewer, each time beside a
full-precision twin (``teacher=joint``) whose maps guide it (``loss=hints``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnnbench.quantizers.dorefa import DoReFaWeight, quantize


class ZhuangWeight(DoReFaWeight):
    """``2 q_k(tanh(w) / (2 max|tanh w|) + 1/2) - 1``, the maximum held constant."""

    def forward(self, weight: Tensor) -> Tensor:
        """Quantized weights, same shape as ``weight``."""
        if self.bits in (1, 32):
            return super().forward(weight)
        tanh = torch.tanh(weight)
        return 2 * quantize(tanh / (2 * tanh.detach().abs().max()) + 0.5, self.bits) - 1
