"""Hooks kernel launches for an observer; zero cost when none is attached.

Generated code calls ``launch``, an attribute of the loaded kernel. While an observer is attached, it replaces that
attribute, also of kernels loaded meanwhile; afterwards the original is restored. Nothing is compiled or loaded for it.
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

    name: of the Triton function in ``source``
    launch: runs the kernel
    target: where it runs
    types: Triton's type of each argument
    key: identifies the compiled kernel
    grid: program instances in x, y, z, or an object whose method ``of`` computes them from the arguments
    source: Triton source
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
    """Is told of all launches. ``title``: where it records them, for messages."""

    @property
    def title(self) -> str: ...

    def launcher(self, kernel: Any, launch: Callable[..., None]) -> Callable[..., None]:
        """The replacement for a kernel's ``launch``. It takes the same arguments and must call ``launch``."""

    def operations(self) -> AbstractContextManager[Any]:
        """Open while this thread runs a graph on a device with its own memory. Sees torch's operators first, before
        the mode that has the device or the host run them."""


_lock = threading.Lock()
_live: weakref.WeakSet[Any] = weakref.WeakSet()
_plain: weakref.WeakKeyDictionary[Any, Callable[..., None]] = weakref.WeakKeyDictionary()
_observer: Observer | None = None


def add(kernel: Any) -> None:
    """Register a newly loaded kernel."""
    with _lock:
        _live.add(kernel)
        if _observer is not None:
            _attach(kernel, _observer)


def busy() -> bool:
    """Whether an observer is attached."""
    return _observer is not None


def check_free() -> None:
    """Raise RecordingError if an observer is attached."""
    if (observer := _observer) is not None:
        raise RecordingError(
            f"launches are being recorded already, into {observer.title}; that recording (torchport.record's or "
            "validate's) has to end before another one begins"
        )


def operations() -> AbstractContextManager[Any]:
    """The observer's context for the operators of a graph; an empty one if no observer is attached."""
    observer = _observer
    return nullcontext() if observer is None else observer.operations()


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Attach ``observer`` to all launches, of every thread, while the context is open.

    Raises RecordingError if another observer is attached.
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
