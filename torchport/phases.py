"""Where the time of a compilation goes: phases, one inside another, in each thread.

At every moment a thread is in one phase, the innermost. The seconds that phases are innermost therefore add up to the
wall time. Nothing is measured before ``start``: ``phase`` then is one comparison.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum

__all__ = [
    "MAIN",
    "Phase",
    "Span",
    "begin",
    "end",
    "inside",
    "measuring",
    "merge",
    "phase",
    "start",
    "stop",
    "take",
    "totals",
]

MAIN = "main process"
"""The lane of the thread that called ``start``."""


class Phase(Enum):
    """What a thread does, in the order of a table; the value is what users read."""

    DYNAMO = "Dynamo"
    GUARDS = "guards"
    AOT = "AOTAutograd"
    KEYS = "cache keys"
    GRAPH_PASSES = "graph passes"
    LOWERING = "lowering"
    SCHEDULING = "scheduling"
    TILINGS = "tilings"
    CODE = "code generation"
    FRONTEND = "Triton's frontend"
    PASSES = "torchport's passes"
    LLVM = "LLVM"
    CXX = "C++ compiler"
    LOADING = "linking and loading"
    WAITING = "waiting"
    IMPORTS = "imports"
    RUNNING = "running"
    REST = "rest"


@dataclass(frozen=True)
class Span:
    """One phase, from its beginning to its end.

    phase: which.
    detail: what it worked on, such as the name of a pass or a module; may be empty.
    lane: the process or thread that it was in.
    depth: phases around it.
    start: when it began, in seconds of ``time.perf_counter``, which all processes of a machine share.
    seconds: how long it took.
    own_seconds: the part of it that was in no phase inside it.
    own_cpu: the CPU seconds of that part, in all threads of the process for ``MAIN``, in its thread elsewhere.
    """

    phase: Phase
    detail: str
    lane: str
    depth: int
    start: float
    seconds: float
    own_seconds: float
    own_cpu: float


@dataclass
class _Open:
    """A phase that has not ended, and what the phases inside it took."""

    phase: Phase
    detail: str
    start: float
    cpu_start: float
    inner: float = 0.0
    inner_cpu: float = 0.0


@dataclass
class _Thread(threading.local):
    lane: str | None = None
    cpu: Callable[[], float] = time.thread_time
    open: list[_Open] = field(default_factory=list)


_thread = _Thread()
_spans: list[Span] | None = None  # None: nothing is measured


def measuring() -> bool:
    """Whether phases are measured."""
    return _spans is not None


def start(lane: str = MAIN) -> None:
    """Forget what was measured, and measure from now on; this thread is ``lane``."""
    global _spans
    _spans = []
    _thread.open = []
    _thread.lane, _thread.cpu = lane, time.process_time


def stop() -> list[Span]:
    """Measure no longer. Returns the phases that have ended, in the order of their ends."""
    global _spans
    spans, _spans = _spans or [], None
    return spans


def take() -> list[Span]:
    """The phases that have ended since the last call; measuring goes on."""
    if not _spans:
        return []
    spans = _spans[:]
    del _spans[: len(spans)]
    return spans


def merge(spans: Iterable[Span], lane: str) -> None:
    """Add what another process measured, as ``lane``."""
    if _spans is not None:
        _spans.extend(replace(span, lane=lane) for span in spans)


def phase(name: Phase, detail: str = "") -> AbstractContextManager[None]:
    """A context manager: while it is open, this thread is in phase ``name``."""
    return nullcontext() if _spans is None else _phase(name, detail)


@contextmanager
def _phase(name: Phase, detail: str) -> Iterator[None]:
    begin(name, detail)
    try:
        yield
    finally:
        end()


def begin(name: Phase, detail: str = "") -> None:
    """Enter a phase; ``end`` leaves it."""
    _thread.open.append(_Open(name, detail, time.perf_counter(), _thread.cpu()))


def end() -> Span | None:
    """Leave the innermost phase. Returns it, or None if it began before ``start``."""
    if _spans is None or not _thread.open:
        return None
    one = _thread.open.pop()
    seconds, cpu = time.perf_counter() - one.start, _thread.cpu() - one.cpu_start
    if _thread.open:
        _thread.open[-1].inner += seconds
        _thread.open[-1].inner_cpu += cpu
    lane = _thread.lane or threading.current_thread().name
    span = Span(
        one.phase, one.detail, lane, len(_thread.open), one.start, seconds, seconds - one.inner, cpu - one.inner_cpu
    )
    _spans.append(span)
    return span


def inside(name: Phase) -> bool:
    """Whether the innermost phase of this thread is ``name``."""
    return bool(_thread.open) and _thread.open[-1].phase == name


def totals(spans: Iterable[Span]) -> dict[Phase, tuple[float, float]]:
    """Wall and CPU seconds of each phase that took any, in the order of ``Phase``; they add up to the outermost's."""
    sums = {one: [0.0, 0.0] for one in Phase}
    for span in spans:
        sums[span.phase][0] += span.own_seconds
        sums[span.phase][1] += span.own_cpu
    return {one: (wall, cpu) for one, (wall, cpu) in sums.items() if wall > 0}
