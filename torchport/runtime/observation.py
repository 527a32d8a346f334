"""Who looks at the launches of kernels that are loaded already, and takes no time where nobody does.

A kernel that generated code calls is an object with an attribute ``launch``. While an observer is there, that attribute
is the observer's, of kernels loaded before and during that time; then it is again what it was. Nothing is compiled or
loaded for it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from torchport.errors import RecordingError

__all__ = ["Observable", "Observer", "add", "busy", "check_free", "observing", "operations"]


class Observable(Protocol):
    """A loaded kernel (``torchport.inductor.kernels.LoadedKernel``).

    ``name``: of the Triton function in ``source``; ``types``: Triton's type of each argument; ``grid``: program
    instances in x, y, z, or what computes them from the arguments with a method ``of``.
    """

    name: str
    launch: Callable[..., None]
    target: str
    types: Mapping[str, str]

    @property
    def key(self) -> str: ...

    @property
    def grid(self) -> Any: ...

    @property
    def source(self) -> str: ...


class Observer(Protocol):
    """Who looks at launches. ``title``: where what is seen goes, for messages."""

    @property
    def title(self) -> str: ...

    def launcher(self, kernel: Any, launch: Callable[..., None]) -> Callable[..., None]:
        """What is called in place of ``launch``, the kernel's own, with its arguments. It must call ``launch``."""

    def operations(self) -> AbstractContextManager[Any]:
        """Open while this thread runs a graph on a device with memory of its own: torch's operations pass here first,
        and then to what has the device or the host do them."""


_lock = threading.Lock()
_live: weakref.WeakSet[Any] = weakref.WeakSet()
_plain: weakref.WeakKeyDictionary[Any, Callable[..., None]] = weakref.WeakKeyDictionary()
_observer: Observer | None = None


def add(kernel: Any) -> None:
    """Make a new kernel known."""
    with _lock:
        _live.add(kernel)
        if _observer is not None:
            _attach(kernel, _observer)


def busy() -> bool:
    """Whether somebody looks."""
    return _observer is not None


def check_free() -> None:
    """Raise RecordingError where somebody looks already."""
    if (observer := _observer) is not None:
        raise RecordingError(
            f"launches are being recorded already, into {observer.title}; that recording (torchport.record's or "
            "validate's) has to end before another one begins"
        )


def operations() -> AbstractContextManager[Any]:
    """The observer's context for the operations of a graph; one that does nothing where nobody looks."""
    observer = _observer
    return nullcontext() if observer is None else observer.operations()


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have ``observer`` look at all launches, of every thread, while the context is open.

    Raises RecordingError where another one does already.
    """
    global _observer
    with _lock:
        check_free()
        _observer = observer
        for kernel in list(_live):
            _attach(kernel, observer)
    try:
        yield
    finally:
        with _lock:
            _observer = None
            for kernel, launch in list(_plain.items()):
                kernel.launch = launch
            _plain.clear()


def _attach(kernel: Any, observer: Observer) -> None:
    _plain[kernel] = kernel.launch
    kernel.launch = observer.launcher(kernel, kernel.launch)
