"""Backward slices: the operations that a value is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torchport_passes.ir.ops import owner_of

__all__ = ["backward_slice"]


def backward_slice(value: Any, follow: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """The operations that ``value`` is computed from, each once.

    ``follow``: for an operation, the operands to go on with.
    """
    seen: set[Any] = set()
    work = [value]
    while work:
        op = owner_of(work.pop())
        if op is None or op in seen:
            continue
        seen.add(op)
        yield op
        work.extend(follow(op))
