"""Numerical accuracy of kernels: recordings, float64 references, verdicts and reports (docs/numerics/README.md)."""
