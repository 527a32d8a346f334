"""Compiles the kernels of operators before they are needed."""
