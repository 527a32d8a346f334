"""The smallest set of causes that must go for a figure to be small enough: bisection, then delta debugging.

Causes are ranked, but their effects need not add up: two errors may cancel, so that removing one makes things worse.
So nothing is concluded from one set about another: every set that is returned was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Search", "smallest"]

T = TypeVar("T")

_FEW = 3
"""Causes that one alone may still stand for."""


@dataclass(frozen=True)
class Search(Generic[T]):
    """What a search found.

    chosen: the set, in the order of the ranking; where ``met`` is False, the one with the least figure.
    value: its figure.
    met: whether the figure is within the budget.
    minimal: whether it is known that no cause can be left out of the set.
    smallest: whether it is known that no smaller set of the causes is within the budget.
    trials: how many sets were measured.
    """

    chosen: tuple[T, ...]
    value: float
    met: bool
    minimal: bool
    smallest: bool
    trials: int


class _Exhausted(Exception):
    """There are no trials left."""


class _Trials:
    def __init__(self, measure: Callable[[tuple[int, ...]], float], budget: float, most: int) -> None:
        self.measure, self.budget, self.most = measure, budget, most
        self.known: dict[tuple[int, ...], float] = {}

    def value(self, indices: Sequence[int]) -> float:
        """The figure of a set; NaN counts as infinite."""
        key = tuple(sorted(indices))
        if key not in self.known:
            if len(self.known) >= self.most:
                raise _Exhausted
            found = self.measure(key)
            self.known[key] = math.inf if math.isnan(found) else found
        return self.known[key]

    def met(self, indices: Sequence[int]) -> bool:
        return self.value(indices) <= self.budget

    def best(self) -> tuple[int, ...]:
        """Of the sets measured: the smallest within the budget, else that with the least figure."""
        met = [key for key, value in self.known.items() if value <= self.budget]
        if met:
            return min(met, key=lambda key: (len(key), self.known[key], key))
        return min(self.known, key=lambda key: (self.known[key], len(key), key))


def smallest(
    ranked: Sequence[T], measure: Callable[[Sequence[T]], float], budget: float, trials: int = 100
) -> Search[T]:
    """Search for a small subset of ``ranked`` with ``measure(subset) <= budget``.

    ranked: the likeliest causes first.
    measure: the figure where a subset's causes are gone; it is called once for each subset, in the ranking's order.
    trials: how many subsets are measured at most, at least 1.

    The shortest prefix of the ranking is found by doubling and bisection. What can be left out of it is, in halves,
    quarters, and one by one, until nothing can (ddmin, Zeller and Hildebrandt 2002). If two or three are left, each
    cause is tried alone, too, as far as there are trials.
    """
    run = _Trials(lambda key: measure([ranked[index] for index in key]), budget, max(1, trials))
    minimal = single = False
    try:
        prefix = _prefix(run, len(ranked))
        if prefix is not None:
            chosen = _reduced(run, list(range(prefix)))
            minimal = True
            if 1 < len(chosen) <= _FEW:
                chosen = next(([index] for index in range(len(ranked)) if run.met([index])), chosen)
            single = len(chosen) <= 2
    except _Exhausted:
        pass
    best = run.best()
    value = run.known[best]
    met = value <= budget
    return Search(
        tuple(ranked[index] for index in best), value, met, met and (minimal or not best),
        met and (single or not best), len(run.known),
    )  # fmt: skip


def _prefix(run: _Trials, count: int) -> int | None:
    """The length of the shortest prefix that is within the budget, as far as bisection finds it; None if none is."""
    if run.met(()):
        return 0
    low, high = 0, 1
    while not run.met(range(min(high, count))):
        if high >= count:
            return None
        low, high = high, 2 * high
    high = min(high, count)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if run.met(range(middle)) else (middle, high)
    return high


def _reduced(run: _Trials, chosen: list[int]) -> list[int]:
    """``chosen`` without what can be left out, the last of the ranking first, until no single cause can."""
    size = max(1, len(chosen) // 2)
    while chosen:
        for end in range(len(chosen), 0, -size):
            fewer = chosen[: max(0, end - size)] + chosen[end:]
            if run.met(fewer):
                chosen = fewer
                break
        else:
            if size == 1:
                return chosen
            size = max(1, size // 2)
            continue
        size = min(size, max(1, len(chosen)))
    return chosen
