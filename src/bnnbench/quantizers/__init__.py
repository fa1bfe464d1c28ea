"""Binarization methods: maths only, one file a method."""

from bnnbench.quantizers.abbnn import QuantizedRPReLU
from bnnbench.quantizers.nonlinearities import NONLINEARITIES, Hardtanh, Maxout, RPReLU

__all__ = ["NONLINEARITIES", "Hardtanh", "Maxout", "QuantizedRPReLU", "RPReLU"]

NONLINEARITIES["quantized_rprelu"] = QuantizedRPReLU
