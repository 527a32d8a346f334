"""Floats as elements of a finite field (docs/numerics/equivalence.md): constants, and functions on payloads."""
