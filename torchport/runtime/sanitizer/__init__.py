"""The kernel sanitizer: which checks are on (docs/sanitizer.md).

Importing this package imports neither torch nor Triton; switching checks on does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torchport.config import SANITIZER_CHECKS, config, parse_checks
from torchport.errors import OptionError

__all__ = ["active", "install", "mark_written", "sanitize"]

DEFAULT = ("address", "uninitialized", "race")

_MODE = "torchport-sanitizer"  # makes Triton recompile kernels that it compiled without checks
_lock = threading.Lock()
_stack: list[tuple[str, ...]] = []


def active() -> tuple[str, ...]:
    """The checks that are on: those of the innermost ``sanitize``, otherwise those of TORCHPORT_SANITIZE."""
    return _stack[-1] if _stack else config().sanitize


@contextmanager
def sanitize(*checks: str) -> Iterator[None]:
    """Check every kernel that is launched on CPU tensors while the context is open.

    ``checks``: any of ``address``, ``extent``, ``uninitialized`` and ``race``; by default all but ``extent``. A launch
    with findings raises SanitizerError after it has run. Kernels and models compiled before are compiled again inside,
    and found again outside. The checks are on in all threads; recompilation of models and tracking of unwritten tensors
    apply to the thread that opened the context.

    Raises OptionError for an unknown check.
    """
    try:
        parsed = parse_checks(",".join(checks or DEFAULT))
    except ValueError as error:
        raise OptionError(f"sanitize{checks!r} is not valid; expected {error}") from error
    import triton

    from torchport.runtime.sanitizer.modes import Recompile, TrackWrites

    with ExitStack() as stack:
        stack.enter_context(Recompile())
        if "uninitialized" in parsed:
            stack.enter_context(TrackWrites())
        with _lock:
            outer = triton.knobs.compilation.instrumentation_mode
            if not _stack:
                triton.knobs.compilation.instrumentation_mode = f"{outer} {_MODE}".strip()
            _stack.append(parsed)
        try:
            yield
        finally:
            with _lock:
                _stack.remove(parsed)
                if not _stack:
                    mode = triton.knobs.compilation.instrumentation_mode
                    triton.knobs.compilation.instrumentation_mode = mode.replace(_MODE, "").strip()


_installed = False


def install() -> None:
    """Apply TORCHPORT_SANITIZE before the first kernel: track tensors from now on, in this thread."""
    global _installed
    if _installed or "uninitialized" not in config().sanitize:
        return
    _installed = True
    from torchport.runtime.sanitizer.modes import TrackWrites

    TrackWrites().__enter__()


def mark_written(tensor: object) -> None:
    """Count all of a tensor as written, by something that the sanitizer does not see (NumPy, ctypes)."""
    from torchport.runtime.sanitizer.shadow import mark

    mark(tensor)


assert set(DEFAULT) <= set(SANITIZER_CHECKS)
