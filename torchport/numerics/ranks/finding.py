"""What was found about one rank: a verdict, where, and a sentence (docs/distributed.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torchport.numerics.runs.schema import Source

__all__ = ["FAULTS", "VERDICTS", "Finding", "Verdict", "listed"]

Verdict = Literal[
    "same", "legal", "not known", "lost rank", "doubled rank", "wrong shard", "stale", "diverged", "another seed",
    "not finite", "wrong", "another call",
]  # fmt: skip

FAULTS: tuple[Verdict, ...] = (
    "lost rank", "doubled rank", "wrong shard", "stale", "diverged", "another seed", "not finite", "wrong",
)  # fmt: skip
"""Verdicts that are faults, whatever their cause. ``another call``: ranks ran different programs."""

VERDICTS: tuple[Verdict, ...] = (*FAULTS, "another call", "not known", "legal", "same")
"""All, in the order in which they are shown."""


@dataclass(frozen=True)
class Finding:
    """A verdict on one rank, or on several that share it.

    verdict: one of VERDICTS
    ranks: whom it is about
    what: the collective, kernel or parameter
    sentence: what is the case
    source: the user's line, if known
    run: ``A`` or ``B`` where two runs are compared; empty for one
    seq: of the launch in the first of these ranks' runs, if it is one
    place: sorts findings in the order in which they happened
    """

    verdict: Verdict
    ranks: tuple[int, ...]
    what: str
    sentence: str
    source: Source | None = None
    run: str = ""
    seq: int | None = None
    place: tuple[int, ...] = ()

    @property
    def is_fault(self) -> bool:
        return self.verdict in FAULTS


def listed(ranks: Iterable[int], word: str = "rank") -> str:
    """``rank 1``, ``ranks 0 and 2``, ``ranks 0 to 3``."""
    numbers: Sequence[int] = sorted(set(ranks))
    if len(numbers) == 1:
        return f"{word} {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{word}s {numbers[0]} to {numbers[-1]}"
    return f"{word}s {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
