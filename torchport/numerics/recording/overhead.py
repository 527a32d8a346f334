"""Chooses which calls of a graph are recorded, so that recording takes limited time."""

from __future__ import annotations

import math

__all__ = ["OverheadBudget"]

BASELINE = 3
"""Unrecorded warm-up calls used to measure baseline latency, before any but the first calls are recorded."""


class OverheadBudget:
    """Chooses which calls of a graph are recorded.

    ratio: seconds that recording may take for each second of the graph's own
    always: how many first calls are recorded whatever they take
    """

    def __init__(self, ratio: float, always: int) -> None:
        self._ratio = ratio
        self._always = always
        self._baseline = math.inf  # seconds of a call that is not recorded
        self._unrecorded = 0
        self._balance = 0.0  # seconds that may be spent

    def allows(self, number: int) -> bool:
        """Whether a call, counted from 0, is recorded. Asked once for each call."""
        if number < self._always or math.isinf(self._ratio):
            return True
        if self._unrecorded < BASELINE:
            return False
        allowance = self._ratio * self._baseline
        self._balance = min(self._balance + allowance, allowance)
        return self._balance >= 0

    def add_unrecorded(self, seconds: float) -> None:
        """Count a call that was not recorded."""
        # The minimum, which may grow slowly: time that other processes take must not be spent on recording.
        self._baseline = min(seconds, 1.1 * self._baseline)
        self._unrecorded += 1

    def add_recorded(self, number: int, seconds: float) -> None:
        """Count a call that was recorded."""
        if number >= self._always and self._unrecorded:
            self._balance -= max(0.0, seconds - self._baseline)
