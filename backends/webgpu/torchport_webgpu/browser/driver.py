"""What stands for a driver while a model is compiled for a browser: nothing can be launched here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torchport.errors import TargetError
from torchport.plugin import Binary, Launcher
from torchport_webgpu.browser.limits import BROWSER

__all__ = ["compiling", "driver"]

_compiling: ContextVar[bool] = ContextVar("torchport_webgpu_compiling", default=False)


@contextmanager
def compiling() -> Iterator[None]:
    """Let graphs be compiled for ``webgpu:browser`` while the context is open."""
    token = _compiling.set(True)
    try:
        yield
    finally:
        _compiling.reset(token)


def driver() -> _Elsewhere:
    """The driver, inside ``compiling``. Raises TargetError outside."""
    if not _compiling.get():
        raise TargetError(
            f"target {BROWSER} runs in browsers, not in this process: 'torchport build MODEL.py:FUNCTION --targets "
            "webgpu --web -o DIR' writes a page"
        )
    return _Elsewhere()


class _Elsewhere:
    """Satisfies ``torchport.plugin.Driver`` as far as compiling a graph needs it."""

    device = "cpu"
    stock = False
    mirrors = "in the browser"
    """Tells Inductor's scope that the device has memory of its own."""

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """A launcher that launches nothing."""
        return _Launcher(), 0


class _Launcher:
    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        raise TargetError(f"kernels for {BROWSER} run in browsers only")

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        def launch(*args: Any) -> None:
            self(grid_x, grid_y, grid_z, None, function, *args)

        return launch
