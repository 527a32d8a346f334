"""Whether kernels compute the same algebra (docs/numerics/equivalence.md)."""
