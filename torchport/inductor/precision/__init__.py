"""Kernels of a graph that are computed in higher precision, as a file says (docs/numerics/decisions.md)."""
