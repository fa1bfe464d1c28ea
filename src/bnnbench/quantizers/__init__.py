"""Binarization methods: maths only, one file a method."""

from bnnbench.quantizers.nonlinearities import NONLINEARITIES, Maxout, RPReLU

__all__ = ["NONLINEARITIES", "Maxout", "RPReLU"]
