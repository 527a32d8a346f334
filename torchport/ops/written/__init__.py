"""Operators whose kernels are written by hand, one module for each family."""
