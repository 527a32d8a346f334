"""Attention in Triton: kernels for every target, and the operators on top of them (docs/attention.md)."""
