"""Writes TTIR as linalg on tensors and memrefs, for compilers of other vendors (docs/linalg.md)."""
