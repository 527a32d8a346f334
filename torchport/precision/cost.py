"""What higher precision costs: the time of a model's step with and without."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from torchport.precision.steps import INFERENCE, Steps
from torchport.precision.ways import Way, threads

__all__ = ["Cost", "cost_of"]

_WARM, _SAMPLE = 1.0, 0.02
"""Seconds that the step runs before it is timed, and that one sample of its time takes at least."""


@dataclass(frozen=True)
class Cost:
    """Time of the model's step on the target, without emulation, medians of alternating runs.

    before, after: CPU time in seconds, on one thread.
    runs: how many runs of each.
    """

    before: float
    after: float
    runs: int

    @property
    def times(self) -> float:
        """How many times as long the step takes."""
        return self.after / self.before if self.before else 1.0


def cost_of(model: Any, inputs: Sequence[Any], way: Way, path: Path, samples: int, steps: Steps = INFERENCE) -> Cost:
    """Time the model's step as ``way``, and so with the precision file ``path``; ``samples`` of each, 1 or more.

    Of training: one step, forward and backward.

    On the target itself: with another chip's arithmetic emulated, times say nothing. On one thread: others of a pool
    spend CPU time on waiting.
    """
    plain = Way(way.name, {name: value for name, value in (way.options or {}).items() if name != "emulate"})
    wide = dict(plain.with_precision(path).options or {})
    once, model = replace(steps, count=min(1, steps.count)), steps.copied(model)
    with warnings.catch_warnings(), threads(1):
        warnings.filterwarnings("ignore", message="torchport, option 'precision'")
        called = [plain.compiled(model), torch.compile(model, backend="torchport", options=wide, dynamic=False)]
        started = time.perf_counter()
        calls = 0
        while calls < 3 or time.perf_counter() - started < _WARM:  # what compiles ahead is still at work at first
            for one in called:
                once.run(model, one, inputs)
            calls += 1
            started = time.perf_counter() if calls == 1 else started  # the first call compiled
        repeats = max(1, round(_SAMPLE * 2 * (calls - 1) / (time.perf_counter() - started)))
        times: list[list[float]] = [[], []]
        for _ in range(samples):
            for one, spent in zip(called, times, strict=True):
                started = time.process_time()
                for _ in range(repeats):
                    once.run(model, one, inputs)
                spent.append((time.process_time() - started) / repeats)
    return Cost(statistics.median(times[0]), statistics.median(times[1]), samples)
