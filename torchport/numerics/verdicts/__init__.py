"""Verdicts on recorded launches and operator calls."""
