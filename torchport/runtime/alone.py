"""A rank that compiles again and is alone with it, told with the guard that failed.

Ranks that run the same program compile at the same calls. Where a guard fails on one of them (a last batch that is
smaller, a flag that only one rank has), the others go on to the next collective and wait there: to the user all hang.
No rank can see that by itself, so each that compiles a function again counts itself in the store of the process group,
and looks some seconds after its end how many there are. Nothing waits for this.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchport.compat import CompileContext, InstructionTranslator, default_store, get_metrics_context
from torchport.runtime import events, ranks

__all__ = ["PATIENCE", "noticed"]

PATIENCE = 5.0
"""Seconds that the other ranks have to come to the same compilation after it has ended on one."""

_last: tuple[str, int] | None = None


@contextmanager
def noticed() -> Iterator[None]:
    """Around the compilation of a graph: tells the user if it is a later one of its function, on this rank only."""
    reason = _reason() if ranks.has_group() and ranks.world_size() > 1 else None
    if reason is None:
        yield
        return
    where, key = _place()
    # A process may not use the connection that another thread waits on.
    store = default_store().clone() if key is not None else None
    if store is not None:
        store.add(key, 1)
    started = time.perf_counter()
    yield
    if store is not None:
        arguments = (store, key, reason, where, time.perf_counter() - started)
        timer = threading.Timer(PATIENCE, _look, arguments)
        timer.daemon = True
        timer.start()


def _reason() -> str | None:
    """The guard that failed, if the function that is being compiled was compiled before."""
    metrics = get_metrics_context()
    return metrics._metrics.get("recompile_reason") if metrics.in_progress() else None


def _place() -> tuple[str, str | None]:
    """The function that is being compiled, and this compilation's name in the store; None if it has that already.

    Dynamo may split the graph of one function into several.
    """
    global _last
    code = InstructionTranslator.current_tx().f_code
    where = f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})"
    this = where, int(CompileContext.current_compile_id().frame_compile_id)
    if this == _last:
        return where, None
    _last = this
    return where, f"torchport/compiled again/{where}/{this[1]}"


def _look(store: Any, key: str, reason: str, where: str, seconds: float) -> None:
    try:
        count, size = store.add(key, 0), ranks.world_size()
    except RuntimeError:  # the job has ended
        return
    if count >= size:
        return
    event = events.CompiledAlone(ranks.rank(), size, count, where, reason, seconds)
    events.record(event)
    warnings.warn(str(event), RuntimeWarning, stacklevel=2)
