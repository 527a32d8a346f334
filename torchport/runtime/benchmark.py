"""Times CPU kernels, with the interface of ``triton.testing.do_bench``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["do_bench"]


def _quantile(ordered: Sequence[float], q: float) -> float:
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = 100,
    grad_to_none: Sequence[Any] | None = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """Wall-clock milliseconds of ``fn()`` with warm caches.

    ``warmup``, ``rep``: milliseconds spent before and while measuring (at least one and three calls). The gradients of
    the tensors ``grad_to_none`` are dropped before each call. Returns the ``quantiles`` (a list, or one number for one
    quantile), else what ``return_mode`` names: min, max, mean, median, or all (the list of times).
    """
    modes: dict[str, Callable[[list[float]], Any]] = {
        "min": min, "max": max, "mean": statistics.fmean, "median": statistics.median, "all": list,
    }  # fmt: skip
    if return_mode not in modes:
        raise ValueError(f"return_mode={return_mode!r} is not valid; expected one of {', '.join(modes)}")

    def once() -> float:
        for tensor in grad_to_none or ():
            tensor.grad = None
        start = time.perf_counter()
        fn()
        return (time.perf_counter() - start) * 1e3

    spent = once()
    while spent < warmup:
        spent += once()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < rep and len(times) < 10_000):
        times.append(once())
    if quantiles is not None:
        ordered = sorted(times)
        values = [_quantile(ordered, q) for q in quantiles]
        return values[0] if len(values) == 1 else values
    return modes[return_mode](times)
