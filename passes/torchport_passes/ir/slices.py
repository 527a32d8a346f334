"""Backward slices: the operations that a value is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torchport_passes.ir.ops import owner_of
from torchport_passes.ir.types import Op, Value

__all__ = ["backward_slice"]


def backward_slice(value: Value, follow: Callable[[Op], Iterable[Value]]) -> Iterator[Op]:
    """The operations that ``value`` is computed from, each once.

    ``follow``: for an operation, the operands to go on with.
    """
    seen: set[Op] = set()
    work = [value]
    while work:
        op = owner_of(work.pop())
        if op is None or op in seen:
            continue
        seen.add(op)
        yield op
        work.extend(follow(op))
