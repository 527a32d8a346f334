"""Compiles kernels in a second process while Inductor generates the code of others.

Inductor's lowering and code generation are Python and hold the interpreter's lock, and so does most of a kernel's
compilation. A helper (``torchport.inductor.helpers``) is started as a graph begins, and imports the compiler while
there is no kernel yet; it gets kernels as they are defined and sends objects back. When all kernels are known the
parent waits for the last few. If there are more, it compiles from the last one backwards until it meets the helper. If
that dies or stops answering the parent compiles the rest: nothing depends on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from torchport import phases
from torchport.config import config
from torchport.inductor import helpers
from torchport.inductor.helpers import Compile, Helper
from torchport.phases import Phase
from torchport.runtime import ranks

__all__ = ["BackgroundCompiler"]

_PATIENCE = 30.0  # seconds without an answer before the helper is taken to hang
_FEW = 12
"""The helper has these done before a parent that has compiled nothing yet has imported the compiler and met it."""

_has_compiled: set[int] = set()  # this process, once it has imported the compiler; a forked one has another number


def _nothing() -> None:
    """What a helper does first if there is nothing to import."""


class BackgroundCompiler:
    """A helper that compiles kernels in the order they are submitted. Kernels are named by their cache keys.

    ``compile_``: compiles a kernel of that key, name and source; None where it cannot. ``prepare``: what the helper
    does first. Both can be pickled where there is a process group.
    """

    def __init__(self, compile_: Compile, prepare: Callable[[], None] = _nothing) -> None:
        self._compile, self._prepare = compile_, prepare
        self._started = False
        self._helper: Helper | None = None
        self._numbers: dict[str, int] = {}

    @staticmethod
    def is_available() -> bool:
        """Whether each rank on this machine has a processor for a second process, and there are POSIX's processes."""
        return config().compile_ahead and ranks.spare_processor()

    def start(self) -> None:
        """Start the helper, unless it was started. It gets ready while there is no kernel yet."""
        if not self._started:
            self._started = True
            with phases.phase(Phase.WAITING, "start"):
                self._helper = helpers.take(self._compile, self._prepare)

    def submit(self, key: str, name: str, source: str) -> None:
        """Hand a kernel to the helper."""
        if key in self._numbers:
            return
        self.start()
        number = self._helper.submit(key, name, source) if self._helper is not None else None
        if number is not None:
            self._numbers[key] = number

    def result(self, key: str) -> bytes | None:
        """The object of a kernel from the helper, waiting for it if it is being compiled. None: compile it here."""
        number, helper = self._numbers.get(key), self._helper
        if number is None or helper is None:
            return None
        helper.exchange(0)
        # It answers in order, so it has not come to this one; or it still imports, which takes as long as some kernels.
        if helper.alive and (not helper.ready or self._is_worth_helping(number - helper.answered)):
            _has_compiled.add(os.getpid())
            helper.claim(number)
            return None
        answered, deadline = helper.answered, time.monotonic() + _PATIENCE
        with phases.phase(Phase.WAITING):
            while helper.alive and number not in helper.results:
                helper.exchange(deadline - time.monotonic())
                if helper.answered > answered:
                    answered, deadline = helper.answered, time.monotonic() + _PATIENCE
                elif time.monotonic() > deadline:
                    helper.kill()
        return helper.results.get(number)

    @staticmethod
    def _is_worth_helping(left: int) -> bool:
        """Whether to compile a kernel here that the helper comes to after ``left`` others."""
        return left > (0 if os.getpid() in _has_compiled else _FEW)

    def stop(self) -> None:
        """Let go of the helper."""
        helper, self._helper, self._started = self._helper, None, True
        if helper is not None:
            helpers.give_back(helper, self._compile, self._prepare)
