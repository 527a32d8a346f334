"""Records what torchport does: compiled graphs, kernels, fallbacks, graph breaks.

The list is bounded and safe to use from many threads. ``TORCHPORT_DEBUG=1`` prints each event as it happens.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torchport.config import config

__all__ = [
    "Avoided",
    "CompiledAlone",
    "Event",
    "Fallback",
    "Graph",
    "GraphBreak",
    "Kernel",
    "Recording",
    "Step",
    "Tape",
    "Transfer",
    "Widened",
    "announce",
    "capture",
    "clear",
    "history",
    "listen",
    "record",
]

LIMIT = 4096
"""Number of events that are kept; older ones are dropped."""


@dataclass(frozen=True)
class Kernel:
    """A kernel was made ready to run.

    name: the kernel's name.
    seconds: the time it took.
    cached: whether its object was in the cache.
    operations: the operations that it computes.
    """

    name: str
    seconds: float
    cached: bool
    operations: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = "loaded" if self.cached else "compiled"
        return f"kernel {self.name}: {how} in {self.seconds * 1e3:.1f} ms"


@dataclass(frozen=True)
class Graph:
    """A graph was compiled.

    ``direction`` is ``inference``, ``forward`` or ``backward``, or ``inductor`` if Inductor generates all of its code.
    """

    direction: str
    target: str
    operations: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.direction} graph of {self.operations} operations: ready for {self.target} in {self.seconds:.2f} s"
        )


@dataclass(frozen=True)
class Fallback:
    """Something runs elsewhere.

    ``to`` says where: ``aten`` (the operations run eagerly), ``eager`` (the graph), ``inductor`` (the graph, with
    Inductor's code generator for its device) or ``host`` (an operation in a graph of a device with its own memory).
    """

    kernel: str | None
    operation: str | None
    reason: str
    to: str
    nodes: tuple[str, ...] = ()
    location: str | None = None

    def __str__(self) -> str:
        what = f"kernel {self.kernel}" if self.kernel else "operation" if self.to == "host" else "graph"
        where = f" ({self.location})" if self.location else ""
        return f"fallback of {what} to {self.to}: {self.reason}{where}"


@dataclass(frozen=True)
class Avoided:
    """A kernel was generated with smaller blocks because ``config`` is in quarantine on ``target``
    (docs/quarantine.md).
    """

    kernel: str
    config: str
    target: str
    reason: str

    def __str__(self) -> str:
        return f"kernel {self.kernel}: {self.config} is in quarantine on {self.target}, smaller blocks: {self.reason}"


@dataclass(frozen=True)
class GraphBreak:
    """Dynamo split the model.

    reason: why, in Dynamo's words.
    location: ``file:line`` of the user's code.
    operator: what Dynamo could not take into a graph, if it says so.
    code: the text of that line.
    """

    reason: str
    location: str | None = None
    operator: str | None = None
    code: str = ""

    def __str__(self) -> str:
        where = f" at {self.location}" if self.location else ""
        operator = f" [{self.operator}]" if self.operator else ""
        code = f": {self.code}" if self.code else ""
        return f"graph break{where}: {self.reason}{operator}{code}"


@dataclass(frozen=True)
class Transfer:
    """Copies between host and device in the first run of a graph, for one ``reason``.

    ``direction`` is ``upload`` or ``download``. Later runs are only counted (``torchport.runtime.devices.statistics``).
    """

    target: str
    direction: str
    reason: str
    copies: int
    bytes: int

    def __str__(self) -> str:
        where = "to" if self.direction == "upload" else "from"
        return f"{self.copies} copies, {self.bytes:,} bytes {where} {self.target}: {self.reason}"


@dataclass(frozen=True)
class Tape:
    """The calls of a graph are played from a tape from now on (docs/tapes.md).

    graph: the file of its generated code.
    constants: how many of its inputs are constants of the tape.
    seconds: the time that making it took.
    """

    graph: str
    constants: int
    seconds: float

    def __str__(self) -> str:
        return f"tape of {self.graph}: {self.constants} constant inputs, made in {self.seconds * 1e3:.1f} ms"


@dataclass(frozen=True)
class Widened:
    """Kernels of a graph are computed in higher precision for the option ``precision`` (docs/numerics/decisions.md).

    to: the type that they are computed in.
    kernels: names of those that are.
    problem: what is not as the option says; empty if all is.
    fits: whether the graph has the kernels that the option names.
    """

    to: str
    kernels: tuple[str, ...]
    problem: str = ""
    fits: bool = True

    def __str__(self) -> str:
        done = f"computed in {self.to}: {', '.join(self.kernels)}" if self.kernels else "nothing is computed wider"
        return f"precision: {done}{f'; {self.problem}' if self.problem else ''}"


@dataclass(frozen=True)
class CompiledAlone:
    """A rank compiled a function again, and not all others did (docs/distributed.md).

    rank: which.
    ranks: how many ranks the job has.
    together: how many of them compiled it, some seconds after the end.
    function: the function and its place.
    guard: the guard that failed on this rank.
    seconds: how long it took.
    """

    rank: int
    ranks: int
    together: int
    function: str
    guard: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"rank {self.rank} compiled {self.function} again, in {self.seconds:.1f} s, and {self.together} of "
            f"{self.ranks} ranks did: meanwhile the others wait in their next collective. The guard that failed here: "
            f"{self.guard}. Give all ranks the same sizes and flags, or mark sizes with torch._dynamo.mark_dynamic"
        )


@dataclass(frozen=True)
class Recording:
    """A recording of launches ended (``torchport.record``).

    folder: where it is.
    launches: how many launches were recorded.
    tensors: how many tensors were stored.
    bytes: their size.
    flagged: launches that failed a check.
    notes: what is missing.
    """

    folder: str
    launches: int
    tensors: int
    bytes: int
    flagged: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        missing = f"; missing: {'; '.join(self.notes)}" if self.notes else ""
        return (
            f"recorded {self.launches} launches ({self.flagged} flagged), {self.tensors} tensors of {self.bytes:,} "
            f"bytes into {self.folder}{missing}"
        )


@dataclass(frozen=True)
class Step:
    """How far the compilation of this thread's graph has come. It is announced to listeners, and not kept.

    graph: which graph.
    kernels: how many kernels are known so far.
    ready: how many of them can run.
    kernel: the one that is being compiled; empty while code is generated.
    ended: whether the compilation is over.
    """

    graph: str
    kernels: int = 0
    ready: int = 0
    kernel: str = ""
    ended: bool = False


Event = Kernel | Graph | Fallback | Avoided | GraphBreak | Transfer | Recording | Tape | Widened | CompiledAlone

_lock = threading.Lock()
_history: deque[Event] = deque(maxlen=LIMIT)
_captures: list[deque[Event]] = []
_listeners: list[Callable[[Step], None]] = []


def record(event: Event) -> None:
    """Keep ``event``, pass it to every open ``capture``, and print it if TORCHPORT_DEBUG is 1 or more."""
    with _lock:
        _history.append(event)
        for events in _captures:
            events.append(event)
    if config().debug >= 1:
        print(f"torchport: {event}", file=sys.stderr, flush=True)


def listen(listener: Callable[[Step], None]) -> None:
    """Have ``listener`` called with every step, in the thread that compiles."""
    if listener not in _listeners:
        _listeners.append(listener)


def announce(step: Step) -> None:
    """Tell the listeners of ``step``."""
    for listener in _listeners:
        listener(step)


def history() -> tuple[Event, ...]:
    """The last LIMIT events of this process, oldest first."""
    with _lock:
        return tuple(_history)


def clear() -> None:
    """Forget the events of this process."""
    with _lock:
        _history.clear()


@contextmanager
def capture() -> Iterator[deque[Event]]:
    """Collect the last LIMIT events of all threads while the context is open."""
    events: deque[Event] = deque(maxlen=LIMIT)
    with _lock:
        _captures.append(events)
    try:
        yield events
    finally:
        with _lock:
            _captures[:] = [other for other in _captures if other is not events]
