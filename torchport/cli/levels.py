"""Colours of verdicts in a terminal."""

from __future__ import annotations

__all__ = ["COLOURS"]

COLOURS = {"EXACT": "green", "EXPECTED": "green", "UNVERIFIED": "yellow", "SUSPECT": "magenta", "FAIL": "red"}
