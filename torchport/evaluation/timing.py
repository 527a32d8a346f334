"""Steady times of several ways to run a model, interleaved, and the processor's time besides."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from torchport.precision.statistics import median_interval

__all__ = ["Sample", "interleaved", "speed"]

Sample = dict[str, list[float]]

_LEAST = 0.01  # seconds of a sample
_MOST = 6.0  # seconds of all rounds together


def interleaved(
    steps: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Sample:
    """Seconds per call of each step: ``rounds`` rounds of A B C A B C ..., each sample as long as the clock needs.

    What the machine does beside is spread over all of them alike. Rounds end early after some seconds, but not before
    three.
    """
    loops = {}
    for name, step in steps.items():
        step()
        begin = clock()
        step()
        loops[name] = max(1, min(1000, round(_LEAST / max(clock() - begin, 1e-7))))
    samples: Sample = {name: [] for name in steps}
    started = time.monotonic()
    for done in range(rounds):
        if done >= 3 and time.monotonic() - started > _MOST:
            break
        for name, step in steps.items():
            begin = clock()
            for _ in range(loops[name]):
                step()
            samples[name].append((clock() - begin) / loops[name])
    return samples


def speed(samples: Sample, of: str, against: str) -> dict[str, Any]:
    """How many times as fast ``of`` is as ``against``: the median of the rounds' ratios, and its interval."""
    ratios = [b / a for a, b in zip(samples[of], samples[against], strict=True) if a > 0]
    if not ratios:
        return {"ratio": None, "interval": None}
    return {"ratio": median(ratios), "interval": median_interval(ratios)}
