"""Lowerings of torchport's in place of Inductor's, in compilations of torchport's only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torchport.errors import UnsupportedOperation
from torchport.inductor.compat import V, lowerings
from torchport.inductor.fallback import user_line
from torchport.inductor.scope import current

__all__ = ["lowered"]

Lowering = Callable[..., Any]

_lock = threading.Lock()
_users = 0
_saved: dict[Any, Lowering] = {}


@contextmanager
def lowered(table: Mapping[Any, Lowering]) -> Iterator[None]:
    """Lower operators as ``table`` says while the context is open. All contexts that overlap have the same table.

    A lowering that returns NotImplemented leaves its call to Inductor's.
    """
    global _users
    with _lock:
        if not _users:
            for operator, ours in table.items():
                _saved[operator] = lowerings[operator]
                lowerings[operator] = _lowering(ours, _saved[operator])
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                lowerings.update(_saved)


def _lowering(ours: Lowering, stock: Lowering) -> Lowering:
    def lower(*args: Any, **kwargs: Any) -> Any:
        scope = current()
        if scope is None or scope.settings.stock:
            return stock(*args, **kwargs)
        try:
            result = ours(*args, **kwargs)
        except UnsupportedOperation as error:
            line = user_line([V.graph.current_node])
            raise UnsupportedOperation(error.operation, error.reason, location=line) from None
        return stock(*args, **kwargs) if result is NotImplemented else result

    return lower
