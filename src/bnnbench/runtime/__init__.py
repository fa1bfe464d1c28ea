"""Packed 1-bit networks on a CPU, without any code of training."""
