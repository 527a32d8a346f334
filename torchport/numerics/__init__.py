"""Precision of kernels: recording what they computed, exact references, verdicts, reports (docs/numerics.md)."""
