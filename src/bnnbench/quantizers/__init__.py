"""Binarization methods: maths only, one file a method."""

from bnnbench.quantizers.abbnn import QuantizedRPReLU
from bnnbench.quantizers.nonlinearities import NONLINEARITIES, Maxout, RPReLU

__all__ = ["NONLINEARITIES", "Maxout", "QuantizedRPReLU", "RPReLU"]

NONLINEARITIES["quantized_rprelu"] = QuantizedRPReLU
