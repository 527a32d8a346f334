"""Observes calls of compiled graphs and launches of Inductor's own kernels; parses generated code."""
