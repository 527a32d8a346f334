"""Precision of whole models and targets: prediction, probes, bisection, reproducers (docs/numerics/README.md)."""
