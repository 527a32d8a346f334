"""Targets ``linalg``: kernels as text for other compilers, and an oracle that runs it (docs/linalg.md)."""
