"""Kernels and mutants of them, compared on payloads."""
