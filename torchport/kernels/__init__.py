"""Triton kernels of torchport's own, compiled for targets that have no library: matrix products."""
