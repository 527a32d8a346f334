"""Comparison of two runs: alignment, root causes, reports."""
