"""Observing calls of compiled graphs and launches of Inductor's own kernels."""
