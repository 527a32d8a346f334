"""A fault of attention: its name, and the ways in which it may show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torchport.numerics.verdicts.attention.reference import Attention, Results

__all__ = ["BLOCKS", "Change", "Fault", "Tries", "to"]

Change = Callable[[Attention], Attention]
Tries = Iterator[tuple[str, Change]]

BLOCKS = (16, 32, 64, 128, 256)
"""Sizes of blocks of keys and rows that are tried."""


@dataclass(frozen=True)
class Fault:
    """What may be wrong in attention.

    name: as in reports.
    tries: of a sequence's attention, with one head of keys, and its wrong results: sentences and changes, which serve
        all heads and sequences. None where the attention has nothing that can be wrong so.
    among_heads: only all heads of a sequence together show it, and are what ``tries`` is given.
    """

    name: str
    tries: Callable[[Attention, Results], Tries]
    among_heads: bool = False


def to(**fields: Any) -> Change:
    """Attention with other fields; functions give a field of the attention that is changed."""

    def change(one: Attention) -> Attention:
        return replace(one, **{name: made(one) if callable(made) else made for name, made in fields.items()})

    return change
