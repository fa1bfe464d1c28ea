"""Optimizers of methods that are one."""
