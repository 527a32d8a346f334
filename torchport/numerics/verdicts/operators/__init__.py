"""Verdicts on calls of library operators."""
