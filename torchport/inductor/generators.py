"""Inductor's code generators are not imported where only its caches are asked.

Its cache keys have the passes that are registered for each type of device. It imports all its code generators to ask,
and registers none itself. After a hit it imports its lowerings to see whether a test wants the code.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, SimpleNamespace
from typing import Any

from torchport.inductor.compat import codecache
from torchport.inductor.shared import SharedChange

__all__ = ["without_generators"]

_LOWERING = "torch._inductor.graph"
_change = SharedChange()


@contextmanager
def without_generators() -> Iterator[None]:
    """Use Inductor's caches without importing its code generators while the context is open.

    Keys are the same whether they are imported already or not, and have each pass that somebody registered. A key that
    another thread computes meanwhile for Inductor may miss that cache once.
    """
    with _change.made(_take_out):
        yield


def _take_out() -> Callable[[], None]:
    cache, passes = codecache.FxGraphCache, codecache.custom_backend_passes
    registration, after_hit = codecache.init_backend_registration, cache.__dict__["cache_hit_post_compile"]
    codecache.init_backend_registration = lambda: None
    codecache.custom_backend_passes = {device: one for device, one in passes.items() if one is not None}
    if _LOWERING not in sys.modules:
        cache.cache_hit_post_compile = staticmethod(_without_lowering(cache.cache_hit_post_compile))

    def put_back() -> None:
        codecache.init_backend_registration, codecache.custom_backend_passes = registration, passes
        cache.cache_hit_post_compile = after_hit

    return put_back


def _without_lowering(function: Any) -> Callable[..., Any]:
    """A function of the same code that does not import Inductor's lowering: nobody else has, so no test has set it."""

    def import_(name: str, globals_: Any = None, locals_: Any = None, names: Any = (), level: int = 0) -> Any:
        if (name, level) == ("graph", 1) and _LOWERING not in sys.modules:
            return SimpleNamespace(GraphLowering=SimpleNamespace(save_output_code=None))
        return builtins.__import__(name, globals_, locals_, names, level)

    named = {**function.__globals__, "__builtins__": {**vars(builtins), "__import__": import_}}
    return FunctionType(function.__code__, named, function.__name__, function.__defaults__)
